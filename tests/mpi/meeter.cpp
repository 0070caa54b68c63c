// SPDX-License-Identifier: BSD-3-Clause
// meeter --call connect|disconnect|fence|all --file PATH [--late R --until-file PATH]
//        [--stranger] [--seconds T] [--iterations N]
//
// Calls of the runtime in which some processes wait for each other (PMIx_Connect as in
// MPI_Comm_accept, PMIx_Disconnect, PMIx_Fence), named one by one: all ranks take part. Nobody may
// come out before everybody is in.
// With --late: once, rank R only when the file is there. Each prints "meeter: rank N calls" before
// and "meeter: rank N met" afterwards.
// Without: again and again, each rank late at random, "all": one kind after the other; rank 0
// prints "meeter: round N".
// With --stranger first a PMIx_Connect that names a process which does not exist: it has to fail.
// At the end rank 0 prints "meeter: N calls, E errors".
#include "tests/mpi/rounds.hpp"

#include <pmix.h>

namespace {

std::vector<pmix_proc_t> processes(int ranks) {
    std::vector<pmix_proc_t> all(static_cast<size_t>(ranks));
    for (size_t r = 0; r < all.size(); ++r) {
        std::strncpy(all[r].nspace, std::getenv("PMIX_NAMESPACE"), PMIX_MAX_NSLEN);
        all[r].rank = static_cast<pmix_rank_t>(r);
    }
    return all;
}

int call(const std::string& kind, int ranks) {
    const auto all = processes(ranks);
    if (kind == "connect") return PMIx_Connect(all.data(), all.size(), nullptr, 0);
    if (kind == "disconnect") return PMIx_Disconnect(all.data(), all.size(), nullptr, 0);
    return PMIx_Fence(all.data(), all.size(), nullptr, 0);
}

bool is_refused_stranger(const mpitest::World& world) {
    auto all = processes(world.size);
    all.push_back(all.back());
    all.back().rank = 1000;
    return PMIx_Connect(all.data(), all.size(), nullptr, 0) != PMIX_SUCCESS;
}

void say(const mpitest::World& world, const char* what) {
    std::printf("meeter: rank %d %s\n", world.rank, what);
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    const mpitest::Rounds rounds(options.text("--file", ""), world);
    const std::string kind = options.text("--call", "all");
    const int late = static_cast<int>(options.number("--late", -1));
    uint64_t errors = options.flag("--stranger") && !is_refused_stranger(world) ? 1 : 0, round = 0;
    if (late >= 0) {
        const auto go = options.text("--until-file", "");
        while (world.rank == late && ::access(go.c_str(), F_OK) != 0) ::usleep(1000);
        errors += rounds.reach(++round) ? 0 : 1;
        say(world, "calls");
        errors += call(kind, world.size) == PMIX_SUCCESS ? 0 : 1;
        errors += rounds.behind(round);
        say(world, "met");
    } else {
        mpitest::Limit limit(options, 100);
        while (world.agree(!limit.reached(round))) {
            errors += rounds.reach(++round) ? 0 : 1;
            rounds.wait_at_random(round);
            const char* kinds[] = {"connect", "disconnect", "fence"};
            errors += call(kind == "all" ? kinds[round % 3] : kind, world.size) != PMIX_SUCCESS;
            errors += rounds.behind(round);
            if (round % 16 == 0) world.say_round("meeter", round);
        }
    }
    errors = world.sum(errors);
    world.say_end("meeter", round, "calls", errors);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
