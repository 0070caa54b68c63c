// SPDX-License-Identifier: BSD-3-Clause
// wanderer [--seconds T] [--iterations N] [--until-file PATH] [--rank R] [--to A,B,...]
//          [--hold-until PATH]
//
// All ranks add their numbers up, again and again. By ghost_mpi.h rank R (1) asks to be moved to A,
// and when it is there to B, and so on; and it holds until PATH is there. Rank 0 prints "round N:
// rank R is on HOST", rank R at the end "stops: B before, A after, E elsewhere", how often it
// was called so. Ends 1 on any error.
#include "tests/mpi/common.hpp"

#include <array>
#include <atomic>
#include <ghost_mpi.h>
#include <sstream>

namespace {

std::string host() {
    std::array<char, 64> name{};
    gethostname(name.data(), name.size() - 1);
    return name.data();
}

struct Stops {
    std::atomic<int> before = 0, after = 0, elsewhere = 0;
    bool watch() {
        return ghost_mpi_watch([](void* data) { ++static_cast<Stops*>(data)->before; },
                               [](void* data, int elsewhere) {
                                   auto& stops = *static_cast<Stops*>(data);
                                   ++stops.after;
                                   stops.elsewhere += elsewhere;
                               },
                               this) == 0;
    }
};

class Traveller {
  public:
    explicit Traveller(const mpitest::Options& options)
        : released_(options.text("--hold-until", "")) {
        std::istringstream words(options.text("--to", ""));
        for (std::string node; std::getline(words, node, ',');) nodes_.push_back(node);
        held_ = !released_.empty() && ghost_mpi_hold() == 0;
    }
    // The next node is asked for when the one before has been reached.
    bool go_on() {
        if (held_ && ::access(released_.c_str(), F_OK) == 0) {
            held_ = false;
            if (ghost_mpi_release() != 0) return false;
        }
        if (next_ == nodes_.size() || (next_ > 0 && host() != nodes_[next_ - 1])) return true;
        return ghost_mpi_move(nodes_[next_++].c_str()) == 0;
    }

  private:
    std::vector<std::string> nodes_;
    size_t next_ = 0;
    std::string released_;
    bool held_ = false;
};

}  // namespace

int main(int argc, char** argv) {
    static Stops stops;
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const int mover = static_cast<int>(options.number("--rank", 1));
    const bool moves = world.rank == mover;
    uint64_t errors = !moves || stops.watch() ? 0 : 1, round = 0;
    Traveller traveller(moves ? options : mpitest::Options(1, argv));
    mpitest::Limit limit(options, 5);
    while (world.agree(!limit.reached(round))) {
        usleep(20000);
        if (moves && !traveller.go_on()) ++errors;
        const auto n = static_cast<uint64_t>(world.size);
        errors += world.sum(static_cast<uint64_t>(world.rank)) == n * (n - 1) / 2 ? 0 : 1;
        std::array<char, 64> where{};
        host().copy(where.data(), where.size() - 1);
        MPI_Bcast(where.data(), static_cast<int>(where.size()), MPI_CHAR, mover, MPI_COMM_WORLD);
        if (world.rank == 0) {
            std::printf("round %llu: rank %d is on %s\n", static_cast<unsigned long long>(round),
                        mover, where.data());
            std::fflush(stdout);
        }
        ++round;
    }
    if (moves) {
        std::printf("stops: %d before, %d after, %d elsewhere\n", stops.before.load(),
                    stops.after.load(), stops.elsewhere.load());
        std::fflush(stdout);
    }
    errors = world.sum(errors);
    world.say_end("wanderer", round, "rounds", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
