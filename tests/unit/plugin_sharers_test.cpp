// SPDX-License-Identifier: BSD-3-Clause
// Ranks that share memory under the simulated runtime: they move, are saved and are restarted
// together, whatever happens to one of them.
#include <gtest/gtest.h>

#include <set>

#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/unit/plugin_move_faults.hpp"

namespace ghost::plugin::sim {
namespace {

// --- moves ---

Json migrate_together(RankId rank, const std::string& to) {
    Json out = migrate({rank}, to);
    out["with_sharers"] = true;
    return out;
}

TEST(SharersMove, OneAloneIsRefusedBeforeAnythingIsDone) {
    Cluster c(1, 3, {0, 1, 1, 1});
    c.chance.sharers = {1, 2};
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
    const std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("with rank 2: --with-sharers moves them together"), std::string::npos)
        << error;
    EXPECT_EQ(c.holds, 0);
    for (const std::string& phase : user.phases) EXPECT_NE(phase, "gating");
    expect_all_run(c);
    expect_sound(c);
}

TEST(SharersMove, TogetherThereAndBack) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        Cluster c(seed, 3, {0, 1, 1, 1});
        c.chance.sharers = {1, 3};
        c.chance.latency_us = 3000;
        for (const char* to : {"gn2", "gn1"}) {
            Client& user = c.client();
            user.ask(migrate_together(3, to));
            ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
            EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
            ASSERT_EQ(user.results[0]["result"].size(), 2u) << user.results[0];
            c.run(second);
            const NodeId node = to[2] - '0';
            EXPECT_EQ(c.node_of(1), node);
            EXPECT_EQ(c.node_of(3), node);
            EXPECT_EQ(c.node_of(2), 1u);
        }
        EXPECT_EQ(c.shared_saved, std::set<RankId>{1});
        expect_all_run(c);
        expect_sound(c);
    }
}

TEST(SharersMove, ListedOnesMoveOnce) {
    Cluster c(2, 3, {0, 1, 1});
    c.chance.sharers = {1, 2};
    Client& user = c.client();
    Json ask = migrate_together(1, "gn2");
    ask["ranks"] = {2, 0, 1};
    user.ask(ask);
    ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_EQ(user.results[0]["result"].size(), 3u) << user.results[0];
    for (RankId rank = 0; rank < 3; ++rank) EXPECT_EQ(c.node_of(rank), 2u);
    expect_sound(c);
}

TEST(SharersMove, BusyOnesAreTriedAgainTogether) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        Cluster c(seed, 3, {0, 1, 1});
        c.chance.sharers = {1, 2};
        c.chance.busy_percent = 40;
        c.chance.fence_percent = 40;
        Client& user = c.client();
        user.ask(migrate_together(1, "gn2"));
        ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        expect_all_run(c);
        expect_sound(c);
    }
    Cluster c(5, 3, {0, 1, 1});
    c.chance.sharers = {1, 2};
    c.chance.waits_behind_fences = true;
    Client& user = c.client();
    user.ask(migrate_together(1, "gn2"));
    ASSERT_TRUE(c.run(2 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    expect_sound(c);
}

TEST(SharersMove, AllStayWhereOneCannotBeTaken) {
    Cluster c(6, 3, {0, 1, 1});
    c.chance.sharers = {1, 2};
    c.chance.fail_stage = Stage::exporting;
    c.chance.fail_ranks = {2};
    Client& user = c.client();
    user.ask(migrate_together(1, "gn2"));
    ASSERT_TRUE(c.run(30 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
    const std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("rank 2 was not moved from gn1 to gn2: export: no luck"),
              std::string::npos)
        << error;
    EXPECT_EQ(c.node_of(1), 1u);
    EXPECT_EQ(c.node_of(2), 1u);
    expect_all_run(c);
    expect_sound(c);
}

// Whatever happens to one of them: they are together, and each once.
class SharersFaults : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(SharersFaults, FaultLeavesThemTogether) {
    auto [state, fault_number] = GetParam();
    auto fault = static_cast<MoveFault>(fault_number);
    for (uint64_t seed = 0, seeds = seeds_of(8); seed < seeds; ++seed) {
        SCOPED_TRACE(seed);
        Cluster c(seed, 4, {0, 1, 1});
        c.chance.sharers = {1, 2};
        Client& user = c.client();
        int looks = 0;  // it is prepared twice: first nobody knows that they share
        bool struck = false;
        user.on_phase = [&, s = state](const std::string& phase) {
            looks += phase == "preparing";
            if (struck || phase != move_states[s] || looks < 2) return;
            struck = true;
            c.daemon(0).after(static_cast<int64_t>(seed) * 60, [&] { inject(c, user, fault); });
        };
        user.ask(migrate_together(2, "gn2"));
        c.run(90 * second, [&] { return !user.results.empty(); });
        c.run(60 * second);
        EXPECT_TRUE(struck);
        expect_no_violation(c);
        EXPECT_FALSE(c.ps().contains("move")) << "the coordinator is not idle";
        if (c.job_aborted || c.job_broken) continue;
        if (!user.gone()) {
            ASSERT_EQ(user.results.size(), 1u);
        }
        expect_all_run(c);
        if (!c.ended[1] && !c.ended[2]) {
            EXPECT_EQ(c.node_of(1), c.node_of(2));
        }
        const bool moved = !user.gone() && user.results[0]["exit"] == 0;
        if (moved && !c.ended[2]) {
            EXPECT_EQ(c.node_of(2), 2u);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, SharersFaults,
                         testing::Combine(testing::Range(0, 7), testing::Range(0, move_faults)),
                         move_fault_name);

// --- snapshots ---

TEST(Sharers, AreSavedWhileAllOfThemAreFrozen) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        Cluster c(seed, 2, {0, 1, 1, 1});
        c.chance.sharers = {1, 3};
        c.chance.latency_us = 3000;
        Client& user = c.client();
        user.ask(checkpoint());
        ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        EXPECT_EQ(c.shared_saved, std::set<RankId>{1});
        c.run(second);
        expect_all_run(c);
        expect_sound(c);
    }
}

TEST(Sharers, DoNotWaitForOneThatCannotBeSaved) {
    for (const Stage stage : {Stage::freeze, Stage::prepare}) {
        Cluster c(5, 2, {0, 1, 1});
        c.chance.sharers = {1, 2};
        c.chance.fail_stage = stage;
        c.chance.fail_ranks = {2};
        Client& user = c.client();
        user.ask(checkpoint());
        ASSERT_TRUE(c.run(15 * second, [&] { return !user.results.empty(); })) << name_of(stage);
        EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
        expect_all_run(c);
        expect_sound(c);
    }
}

TEST(Sharers, AreRestartedOnOneNodeWithOneMemory) {
    Cluster c(3, 3, {0, 1, 1});
    c.chance.sharers = {1, 2};
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    const std::string from = c.folder() + "/4711-000001";
    c.end_mpirun();
    const auto again = [&](std::vector<NodeId> ranks) {
        auto out = std::make_unique<Cluster>(
            4, 3, std::move(ranks), 0, CoordinatorSettings{},
            std::map<std::string, std::string>{{"ghost_restart", from}, {"sim_early", "1"}});
        out->chance.sharers = {1, 2};
        out->run(20 * second);
        expect_sound(*out);
        return out;
    };
    const auto together = again({1, 2, 2});
    expect_all_run(*together);
    EXPECT_EQ(together->shared_files.size(), 1u);
    together->end_mpirun();
    const auto apart = again({0, 1, 2});
    EXPECT_TRUE(apart->job_aborted);
    EXPECT_NE(apart->abort_why.find("ranks 1, 2 share memory"), std::string::npos)
        << apart->abort_why;
    EXPECT_NE(apart->abort_why.find("no rank has run"), std::string::npos) << apart->abort_why;
}

}  // namespace
}  // namespace ghost::plugin::sim
