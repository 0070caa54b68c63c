// SPDX-License-Identifier: BSD-3-Clause
// pattern [--seconds T] [--iterations N] [--until-file PATH] [--memory MB] [--max-bytes B]
// [--quiet]
//
// Self-checking messages of every common kind, 0 to 8 MB, every byte derived from who sent it, as
// what and when. Rank 0 prints a line a round and at the end "pattern: N rounds, E errors". Ends
// with 1 if there was any error on any rank.
#include <algorithm>

#include "tests/mpi/pattern.hpp"

using mpitest::Round;

namespace {

struct Step {
    const char* name;
    size_t (*run)(const Round&);
};

constexpr Step steps[] = {
    {"blocking", mpitest::blocking_exchange},  {"non-blocking", mpitest::nonblocking_storm},
    {"wildcard", mpitest::wildcard_fan_in},    {"persistent", mpitest::persistent_requests},
    {"derived types", mpitest::derived_types}, {"late receives", mpitest::late_receives},
    {"collectives", mpitest::collectives},     {"vector collectives", mpitest::vector_collectives},
    {"communicators", mpitest::communicators},
};

size_t run_round(const Round& round) {
    size_t bad = 0;
    for (const Step& step : steps) {
        size_t here = step.run(round);
        if (here > 0) {
            std::fprintf(stderr, "rank %d round %llu: %zu wrong bytes or values in %s\n",
                         round.world.rank, static_cast<unsigned long long>(round.number), here,
                         step.name);
        }
        bad += here;
    }
    return bad;
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const auto most = static_cast<size_t>(options.number("--max-bytes", 8 << 20));
    const bool quiet = options.flag("--quiet");
    mpitest::Ballast ballast(static_cast<size_t>(options.number("--memory", 1)), world.rank);
    mpitest::Limit limit(options, 3);
    uint64_t errors = 0;
    uint64_t number = 0;
    while (world.agree(!limit.reached(number))) {
        // Every fourth round goes up to the largest messages, the others are quick.
        size_t largest = number % 4 == 0 ? most : std::min<size_t>(most, 70000);
        uint64_t bad = world.sum(run_round(Round{world, number, largest}));
        errors += bad;
        if (world.rank == 0 && !quiet) {
            std::printf("round %llu: %llu errors, %.3f s\n",
                        static_cast<unsigned long long>(number),
                        static_cast<unsigned long long>(bad), limit.elapsed());
            std::fflush(stdout);
        }
        ++number;
    }
    errors += world.sum(ballast.wrong_words());
    world.say_end("pattern", number, "rounds", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
