// SPDX-License-Identifier: BSD-3-Clause
// Live moves of ranks under the simulated runtime: the ordinary life, what cannot go live, every
// fault in every state, and interleavings.
#include <gtest/gtest.h>

#include <random>

#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/unit/plugin_move_faults.hpp"

namespace ghost::plugin::sim {
namespace {

constexpr const char* live_states[] = {"preparing",    "connecting", "holding",   "gating",
                                       "transferring", "copying",    "switching", "going"};
constexpr int first_decided = 6;

// Of one skeleton or more.
std::vector<std::string> phases_of(int sketches) {
    std::vector<std::string> out = {"preparing", "connecting"};
    for (int i = 0; i <= sketches; i++) {
        out.insert(out.end(), {"holding", "gating", "transferring"});
        if (i < sketches) out.emplace_back("copying");
    }
    out.insert(out.end(), {"switching", "going"});
    return out;
}

TEST(LiveMove, RankRunsWhileItsMemoryIsCopied) {
    Cluster c(1, 3, {0, 1});
    Client& user = c.client();
    int copies = 0;
    bool attached = false, held = true;
    user.on_phase = [&](const std::string& phase) {
        if (phase != "copying") return;
        copies = c.running_copies(1);
        attached = c.rank_attached(1);
        // said before the fences are let go
        c.daemon(0).after(1, [&] { held = c.held != 0; });
    };
    user.ask(migrate({1}, "gn2", "live"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    const Json& row = user.results[0]["result"][0];
    EXPECT_EQ(row["mode"], "live");
    EXPECT_FALSE(row.contains("not_live"));
    std::vector<std::string> phases;
    for (const auto& phase : user.phases)  // progress repeats them
        if (phases.empty() || phases.back() != phase) phases.push_back(phase);
    EXPECT_EQ(phases, phases_of(1));
    EXPECT_EQ(copies, 1);
    EXPECT_TRUE(attached);
    EXPECT_FALSE(held);
    EXPECT_EQ(c.node_of(1), 2u);
    EXPECT_EQ(c.holds, 2);
    expect_sound(c);
}

// What the last stop finds is not carried: a new skeleton is taken at once.
TEST(LiveMove, SkeletonIsTakenAgainInTheLastStop) {
    Cluster c(2, 3, {0, 1});
    c.chance.sketches = 3;
    Client& user = c.client();
    user.ask(migrate({1}, "gn2", "live"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_EQ(c.holds, 4);
    EXPECT_EQ(c.node_of(1), 2u);
    expect_sound(c);
}

TEST(LiveMove, BusyRankIsTriedAgain) {
    for (uint64_t seed = 0, seeds = seeds_of(20); seed < seeds; ++seed) {
        Cluster c(seed, 3, {0, 1});
        c.chance.busy_percent = 60;
        c.chance.fence_percent = 60;
        Client& user = c.client();
        user.ask(migrate({1}, "gn2", "live"));
        ASSERT_TRUE(c.run(40 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        expect_sound(c);
    }
}

// Only that it was asked for in so many words makes it a refusal.
TEST(LiveMove, WhatCannotGoLiveIsRefusedOrStopped) {
    for (const std::string mode : {"live", "auto"}) {
        SCOPED_TRACE(mode);
        Cluster c(3, 3, {0, 1});
        c.chance.fail_live = Stage::live;
        c.chance.fail_ranks = {1};
        Client& user = c.client();
        user.ask(migrate({1}, "gn2", mode));
        ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
        const Json& r = user.results[0];
        ASSERT_EQ(r["result"].size(), 1u) << r;
        const Json& row = r["result"][0];
        EXPECT_EQ(row["not_live"], "it has a timer");
        if (mode == "auto") {
            EXPECT_EQ(r["exit"], 0) << r;
            EXPECT_EQ(row["mode"], "stop");
            EXPECT_EQ(c.node_of(1), 2u);
        } else {
            EXPECT_EQ(r["exit"], 1) << r;
            EXPECT_NE(std::string(r["error"]).find("it cannot move live: it has a timer"),
                      std::string::npos)
                << r;
            EXPECT_EQ(c.node_of(1), 1u);
        }
        EXPECT_TRUE(c.rank_attached(1));
        expect_sound(c);
    }
}

// Whatever ends it on its way, by auto it is tried by stop.
TEST(LiveMove, WhatFailsOnItsWayMovesByStop) {
    for (const auto stage : {Stage::exporting, Stage::importing}) {
        for (const std::string mode : {"live", "auto"}) {
            SCOPED_TRACE(mode);
            Cluster c(10, 3, {0, 1});
            c.chance.fail_live = stage;
            c.chance.fail_ranks = {1};
            Client& user = c.client();
            user.ask(migrate({1}, "gn2", mode));
            ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
            const Json& r = user.results[0];
            const Json& row = r["result"][0];
            EXPECT_EQ(r["exit"], mode == "auto" ? 0 : 1) << r;
            EXPECT_EQ(row["mode"], mode == "auto" ? "stop" : "live") << r;
            EXPECT_EQ(row.contains("not_live"), mode == "auto") << r;
            EXPECT_EQ(c.node_of(1), mode == "auto" ? 2u : 1u);
            EXPECT_TRUE(c.rank_attached(1));
            expect_sound(c);
        }
    }
}

// Both ends have something to say of it: what becomes of the move is the same whoever is heard
// first, and what the source has found is what the user hears.
TEST(LiveMove, WhoIsHeardFirstMakesNoDifference) {
    for (const auto source : {Stage::live, Stage::exporting, Stage::check})
        for (const auto target : {Stage::live, Stage::importing, Stage::target})
            for (const std::string mode : {"live", "auto"})
                for (uint64_t seed = 0, seeds = seeds_of(20); seed < seeds; ++seed) {
                    SCOPED_TRACE(
                        fmt::format("{} {} {} {}", name_of(source), name_of(target), mode, seed));
                    Cluster c(seed, 3, {0, 1});
                    c.chance.latency_us = 2000;
                    c.chance.fail_live = source;
                    c.chance.fail_at_target = target;
                    c.chance.fail_ranks = {1};
                    Client& user = c.client();
                    user.ask(migrate({1}, "gn2", mode));
                    ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
                    const Json& r = user.results[0];
                    const bool stops = mode == "auto" && source != Stage::check;
                    EXPECT_EQ(r["exit"], stops ? 0 : 1) << r;
                    EXPECT_EQ(r["result"][0]["mode"], stops ? "stop" : "live") << r;
                    EXPECT_EQ(c.restores, stops ? 2 : 1);
                    EXPECT_EQ(c.node_of(1), stops ? 2U : 1U);
                    const std::string error = r.value("error", "");
                    const bool is_found = error.find("it has a timer") != std::string::npos;
                    EXPECT_TRUE(stops || source == Stage::exporting || is_found) << error;
                    EXPECT_TRUE(c.rank_attached(1));
                    expect_sound(c);
                    if (testing::Test::HasFailure()) return;
                }
}

// What goes wrong by stop too is said, and the rank goes on.
TEST(LiveMove, WhatFailsBothWaysIsRefused) {
    Cluster c(11, 3, {0, 1});
    c.chance.fail_stage = Stage::exporting;
    c.chance.fail_ranks = {1};
    Client& user = c.client();
    user.ask(migrate({1}, "gn2", "auto"));
    ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
    EXPECT_EQ(user.results[0]["result"].size(), 1u) << user.results[0];
    EXPECT_EQ(c.restores, 2);
    EXPECT_EQ(c.node_of(1), 1u);
    EXPECT_TRUE(c.rank_attached(1));
    expect_sound(c);
}

// Each rank is tried live, whatever the one before it was.
TEST(LiveMove, EachRankOfAListIsTriedLive) {
    Cluster c(4, 3, {0, 1, 1, 1});
    c.chance.fail_live = Stage::live;
    c.chance.fail_ranks = {2};
    Client& user = c.client();
    user.ask(migrate({1, 2, 3}, "gn2", "auto"));
    ASSERT_TRUE(c.run(20 * second, [&] { return !user.results.empty(); }));
    const Json& r = user.results[0];
    EXPECT_EQ(r["exit"], 0) << r;
    ASSERT_EQ(r["result"].size(), 3u) << r;
    for (const auto& row : r["result"]) EXPECT_EQ(row["mode"], row["rank"] == 2 ? "stop" : "live");
    expect_sound(c);
}

TEST(LiveMove, RanksThatShareMemoryMoveByStop) {
    for (const std::string mode : {"live", "auto"}) {
        SCOPED_TRACE(mode);
        Cluster c(5, 3, {0, 1, 1});
        c.chance.sharers = {1, 2};
        Client& user = c.client();
        Json order = migrate({1}, "gn2", mode);
        order["with_sharers"] = true;
        user.ask(order);
        ASSERT_TRUE(c.run(20 * second, [&] { return !user.results.empty(); }));
        const Json& r = user.results[0];
        EXPECT_EQ(r["exit"], mode == "auto" ? 0 : 1) << r;
        for (const RankId rank : {1, 2}) EXPECT_EQ(c.node_of(rank), mode == "auto" ? 2u : 1u);
        expect_sound(c);
    }
}

// What the request does not say the job's parameters do; what both leave open is chosen by size.
TEST(LiveMove, ModeIsTheRequestsElseTheJobsElseChosen) {
    constexpr uint64_t small = 15 << 20, large = 17 << 20;
    const struct {
        std::string parameter, asked;
        uint64_t memory;
        std::string done;
    } cases[] = {
        {"", "", large, "live"},         {"", "", small, "stop"},
        {"auto", "", large, "live"},     {"auto", "", small, "stop"},
        {"live", "", small, "live"},     {"stop", "", large, "stop"},
        {"stop", "live", small, "live"}, {"live", "stop", large, "stop"},
        {"stop", "auto", large, "live"}, {"lazy", "", large, "live"},
    };
    for (const auto& one : cases) {
        SCOPED_TRACE(one.parameter + " " + one.asked);
        std::map<std::string, std::string> parameters;
        if (!one.parameter.empty()) parameters["ghost_migrate_mode"] = one.parameter;
        Cluster c(7, 3, {0, 1}, 0, {}, parameters);
        c.chance.memory = one.memory;
        Client& user = c.client();
        Json order = migrate({1}, "gn2", one.asked);
        if (one.asked.empty()) order.erase("mode");
        user.ask(order);
        ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
        const Json& row = user.results[0]["result"][0];
        EXPECT_EQ(row["mode"], one.done) << row;
        const bool named = one.parameter == "live" || one.parameter == "stop";
        const bool chosen = one.asked.empty() ? !named : one.asked == "auto";
        EXPECT_EQ(row.contains("memory"), chosen && one.done == "live") << row;
        EXPECT_EQ(row.contains("not_live"), chosen && one.done == "stop") << row;
        EXPECT_EQ(c.node_of(1), 2u);
        expect_sound(c);
    }
}

// What the source finds before it sends anything goes on by stop with the target that is ready.
TEST(LiveMove, WhatGoesByStopPreparesItsTargetOnce) {
    for (const bool untracked : {false, true}) {
        for (const std::string mode : {"stop", "auto", "live"}) {
            SCOPED_TRACE(mode + (untracked ? " untracked" : " small"));
            Cluster c(9, 3, {0, 1});
            c.chance.memory = untracked ? 1 << 30 : 1 << 20;
            c.chance.untracked = untracked;
            Client& user = c.client();
            std::vector<std::string> phases;
            user.on_phase = [&](const std::string& phase) {
                if (phases.empty() || phases.back() != phase) phases.push_back(phase);
            };
            user.ask(migrate({1}, "gn2", mode));
            ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
            const Json& r = user.results[0];
            const bool refused = untracked && mode == "live";
            EXPECT_EQ(r["exit"], refused ? 1 : 0) << r;
            EXPECT_EQ(r["result"][0]["moved"], !refused) << r;
            EXPECT_EQ(c.node_of(1), refused ? 1u : 2u);
            EXPECT_EQ(c.restores, 1);
            if (mode != "live") {
                EXPECT_EQ(r["result"][0]["mode"], "stop");
                EXPECT_EQ(r["result"][0].contains("not_live"), mode == "auto") << r;
                EXPECT_EQ(phases, phases_of(0));
            }
            expect_sound(c);
        }
    }
}

TEST(LiveMove, NoRankIsSmallIfTheJobSaysSo) {
    Cluster c(8, 3, {0, 1}, 0, {}, {{"ghost_migrate_live_from", "0"}});
    c.chance.memory = 0;
    Client& user = c.client();
    user.ask(migrate({1}, "gn2", "auto"));
    ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["result"][0]["mode"], "live") << user.results[0];
    expect_sound(c);
}

TEST(LiveMove, UnknownModeIsRefused) {
    Cluster c(6, 3, {0, 1});
    Client& user = c.client();
    user.ask(migrate({1}, "gn2", "lazy"));
    ASSERT_TRUE(c.run(9 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    EXPECT_EQ(c.node_of(1), 1u);
    expect_sound(c);
}

class LiveFaults : public testing::TestWithParam<std::tuple<int, int>> {};

// In the states that it is in twice the fault comes the first time or the second.
TEST_P(LiveFaults, FaultLeavesOneCopyAndIdleCoordinator) {
    const auto [state, fault_number] = GetParam();
    const auto fault = static_cast<MoveFault>(fault_number);
    const bool twice = state >= 2 && state <= 4;
    for (uint64_t seed = 0, seeds = seeds_of(6); seed < seeds; ++seed) {
        Cluster c(seed, 4, places(fault));
        Client& user = c.client();
        bool struck = false, copied = false;
        user.on_phase = [&, s = state](const std::string& phase) {
            copied |= phase == "copying";
            const bool now = !twice || copied == (seed % 2 == 1);
            if (struck || !now || phase != live_states[s]) return;
            struck = true;
            if (seed < 2) return inject(c, user, fault);
            c.daemon(0).after(static_cast<int64_t>(seed) * 60, [&] { inject(c, user, fault); });
        };
        user.ask(migrate({1}, "gn2", "live"));
        c.run(90 * second, [&] { return !user.results.empty(); });
        c.run(60 * second);
        EXPECT_TRUE(struck);
        judge(c, user, fault, testing::PrintToString(seed), true);
        const bool rank_dies = fault == MoveFault::source_tree || fault == MoveFault::source_node ||
                               fault == MoveFault::rank_ends ||
                               fault == MoveFault::rank_ends_slowly ||
                               fault == MoveFault::lose_to_target;
        if (state < first_decided && seed < 2 && !rank_dies) {
            EXPECT_FALSE(c.ended[1] || c.job_aborted || c.job_broken) << "seed " << seed;
            EXPECT_TRUE(c.rank_attached(1)) << "seed " << seed;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, LiveFaults,
                         testing::Combine(testing::Range(0, 8), testing::Range(0, move_faults)),
                         [](const testing::TestParamInfo<std::tuple<int, int>>& info) {
                             return std::string(live_states[std::get<0>(info.param)]) + "_" +
                                    move_fault_names[std::get<1>(info.param)];
                         });

// By auto it moves live, or is small, or fails on its way and is tried by stop.
std::string mode_of(Cluster& c, std::mt19937_64& random) {
    if (random() % 2 == 0) return "live";
    if (random() % 3 == 0) c.chance.memory = 1 << 20;
    constexpr Stage ways[] = {Stage::live, Stage::exporting, Stage::importing};
    constexpr Stage heard[] = {Stage::live, Stage::importing, Stage::target};
    if (const auto way = random() % 4; way < 3) c.chance.fail_live = ways[way];
    if (const auto way = random() % 4; way < 3) c.chance.fail_at_target = heard[way];
    c.chance.fail_ranks = {1};
    return "auto";
}

TEST(RandomLiveMoves, Interleavings) {
    for (uint64_t seed = 1, seeds = seeds_of(400); seed <= seeds; ++seed) {
        std::mt19937_64 random(seed);
        const auto fault = static_cast<MoveFault>(random() % move_faults);
        Cluster c(seed, 4, places(fault));
        c.chance.latency_us = 1 + static_cast<int64_t>(random() % 2000);
        c.chance.busy_percent = static_cast<int>(random() % 40);
        c.chance.fence_percent = static_cast<int>(random() % 40);
        c.chance.sketches = 1 + static_cast<int>(random() % 2);
        Client& user = c.client();
        user.ask(migrate({1}, "gn2", mode_of(c, random)));
        c.daemon(0).after(static_cast<int64_t>(random() % 40'000), [&] { inject(c, user, fault); });
        c.run(90 * second, [&] { return !user.results.empty(); });
        c.run(60 * second);
        judge(c, user, fault,
              "seed " + std::to_string(seed) + " " + move_fault_names[static_cast<int>(fault)],
              true);
        if (testing::Test::HasFailure()) return;
    }
}

}  // namespace
}  // namespace ghost::plugin::sim
