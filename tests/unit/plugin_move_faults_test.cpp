// SPDX-License-Identifier: BSD-3-Clause
// Moves of ranks under the simulated runtime: every fault in every state, and thousands of random
// interleavings.
#include <gtest/gtest.h>

#include <random>

#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/unit/plugin_move_faults.hpp"

namespace ghost::plugin::sim {
namespace {

class MoveFaults : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(MoveFaults, FaultLeavesOneCopyAndIdleCoordinator) {
    auto [state, fault_number] = GetParam();
    auto fault = static_cast<MoveFault>(fault_number);
    for (uint64_t seed = 0, seeds = seeds_of(8); seed < seeds; ++seed) {
        Cluster c(seed, 4, places(fault));
        Client& user = c.client();
        bool struck = false;
        user.on_phase = [&, s = state](const std::string& phase) {
            if (struck || phase != move_states[s]) return;
            struck = true;
            // At once, or a little into the state.
            if (seed < 2) return inject(c, user, fault);
            c.daemon(0).after(static_cast<int64_t>(seed) * 60, [&] { inject(c, user, fault); });
        };
        user.ask(migrate({1}, "gn2"));
        c.run(90 * second, [&] { return !user.results.empty(); });
        c.run(60 * second);
        EXPECT_TRUE(struck);
        const bool before = state < 5;
        judge(c, user, fault, testing::PrintToString(seed));
        // The promise of the issue: before the switch any one party may die.
        // (The next message to the target after `prepare` may be `switch`: that is after it.)
        const bool rank_dies = fault == MoveFault::source_tree || fault == MoveFault::source_node ||
                               fault == MoveFault::rank_ends ||
                               fault == MoveFault::rank_ends_slowly ||
                               fault == MoveFault::lose_to_target;
        if (before && seed < 2 && !rank_dies) {
            EXPECT_FALSE(c.ended[1] || c.job_aborted || c.job_broken) << "seed " << seed;
            EXPECT_TRUE(c.rank_attached(1)) << "seed " << seed;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, MoveFaults,
                         testing::Combine(testing::Range(0, 7), testing::Range(0, move_faults)),
                         move_fault_name);

// --- random interleavings ---

TEST(RandomMoves, Interleavings) {
    for (uint64_t seed = 1, seeds = seeds_of(2000); seed <= seeds; ++seed) {
        std::mt19937_64 random(seed);
        auto fault = static_cast<MoveFault>(random() % move_faults);
        Cluster c(seed, 4, places(fault));
        c.chance.latency_us = 1 + static_cast<int64_t>(random() % 2000);
        c.chance.busy_percent = static_cast<int>(random() % 40);
        c.chance.fence_percent = static_cast<int>(random() % 40);
        Client& user = c.client();
        user.ask(migrate({1}, "gn2"));
        c.daemon(0).after(static_cast<int64_t>(random() % 20'000), [&] { inject(c, user, fault); });
        c.run(90 * second, [&] { return !user.results.empty(); });
        c.run(60 * second);
        judge(c, user, fault,
              "seed " + std::to_string(seed) + " " + move_fault_names[static_cast<int>(fault)]);
        if (testing::Test::HasFailure()) return;
    }
}

}  // namespace
}  // namespace ghost::plugin::sim
