// SPDX-License-Identifier: BSD-3-Clause
// compute [--seconds T] [--iterations N] [--until-file PATH] [--memory MB]
//
// Between MPI_Init and MPI_Finalize there is no MPI call at all: integer and floating-point work
// with results that are known. Rank 0 prints "compute: started"; at the end each rank prints
// "compute: rank R: N chunks, E errors". Ends 1 on any error.
#include "tests/mpi/common.hpp"

namespace {

// The logistic map in chaos: one wrong bit in a register and the result is another one.
double chaos(double x, int steps) {
    double y = 1.0 - x, z = x * 0.5;
    for (int i = 0; i < steps; ++i) {
        x = 3.9999 * x * (1.0 - x);
        y = 3.9998 * y * (1.0 - y);
        z = 3.9997 * z * (1.0 - z);
    }
    return x + 2.0 * y + 4.0 * z;
}

// Every pass adds i to word i, so that after p passes word i is p * i.
class Sums {
  public:
    explicit Sums(size_t megabytes) : words_(megabytes << 17) {}
    void pass() {
        for (size_t i = 0; i < words_.size(); ++i) words_[i] += i;
        ++passes_;
    }
    uint64_t wrong() const {
        uint64_t bad = 0;
        for (size_t i = 0; i < words_.size(); ++i) bad += words_[i] != passes_ * i ? 1 : 0;
        return bad;
    }

  private:
    std::vector<uint64_t> words_;
    uint64_t passes_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    Sums sums(static_cast<size_t>(options.number("--memory", 8)));
    if (world.rank == 0) {
        std::printf("compute: started\n");
        std::fflush(stdout);
    }
    constexpr int steps = 200000;
    const double expected = chaos(0.3, steps);
    mpitest::Limit limit(options, 100);
    uint64_t chunks = 0, errors = 0;
    while (!limit.reached(chunks)) {
        errors += chaos(0.3, steps) == expected ? 0 : 1;
        sums.pass();
        ++chunks;
    }
    errors += sums.wrong();
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    std::printf("compute: rank %d: %llu chunks, %llu errors, ended on %s\n", world.rank,
                static_cast<unsigned long long>(chunks), static_cast<unsigned long long>(errors),
                host);
    std::fflush(stdout);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
