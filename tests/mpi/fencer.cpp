// SPDX-License-Identifier: BSD-3-Clause
// fencer --file PATH [--seconds T] [--iterations N] [--until-file PATH] [--slow-end MS]
//
// The runtime's own fences (PMIx_Fence), met late by a rank at random, so that a move finds fences
// in every state: nobody there yet, this rank waiting, all but this rank waiting. Each rank writes
// its round into PATH before the fence and afterwards finds every other rank there: a fence that
// completed without somebody shows. Every 16th round a value is put, fenced and fetched.
// With --slow-end rank 1 enters MPI_Finalize that much later than the others.
// Rank 0 prints "fencer: round N" and at the end "fencer: N fences, E errors".
#include "tests/mpi/rounds.hpp"

#include <pmix.h>

namespace {

std::string name(int rank, uint64_t round) {
    return "fencer." + std::to_string(rank) + "." + std::to_string(round);
}

// Puts a value, fences, and fetches everybody's. Returns the number of errors.
uint64_t exchange(const mpitest::World& world, uint64_t round) {
    pmix_value_t value{};
    value.type = PMIX_UINT64;
    value.data.uint64 = mpitest::mix(round) + static_cast<uint64_t>(world.rank);
    uint64_t bad = PMIx_Put(PMIX_GLOBAL, name(world.rank, round).c_str(), &value) == 0 ? 0 : 1;
    bad += PMIx_Commit() == PMIX_SUCCESS ? 0 : 1;
    bad += PMIx_Fence(nullptr, 0, nullptr, 0) == PMIX_SUCCESS ? 0 : 1;
    for (int r = 0; r < world.size; ++r) {
        pmix_proc_t who{};
        std::strncpy(who.nspace, std::getenv("PMIX_NAMESPACE"), PMIX_MAX_NSLEN);
        who.rank = static_cast<pmix_rank_t>(r);
        pmix_value_t* got = nullptr;
        int rc = PMIx_Get(&who, name(r, round).c_str(), nullptr, 0, &got);
        const uint64_t expected = mpitest::mix(round) + static_cast<uint64_t>(r);
        if (rc != PMIX_SUCCESS || got == nullptr || got->data.uint64 != expected) ++bad;
    }
    return bad;
}

}  // namespace

int main(int argc, char** argv) {
    mpitest::World world(&argc, &argv);
    mpitest::Options options(argc, argv);
    mpitest::Limit limit(options, 100);
    const mpitest::Rounds rounds(options.text("--file", ""), world);
    uint64_t errors = 0, round = 0;
    while (world.agree(!limit.reached(round))) {
        ++round;
        errors += rounds.reach(round) ? 0 : 1;
        rounds.wait_at_random(round);
        errors += PMIx_Fence(nullptr, 0, nullptr, 0) == PMIX_SUCCESS ? 0 : 1;
        errors += rounds.behind(round);
        if (round % 16 == 0) errors += exchange(world, round);
        if (round % 16 == 0) world.say_round("fencer", round);
    }
    errors = world.sum(errors);
    world.say_end("fencer", round, "fences", errors);
    // A sleep ends early when the process is restored (criu ends interrupted calls with EINTR).
    const double end = mpitest::now() + options.number("--slow-end", 0) / 1000;
    while (world.rank == 1 && mpitest::now() < end) ::usleep(1000);
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
