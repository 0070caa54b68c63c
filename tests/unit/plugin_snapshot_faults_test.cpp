// SPDX-License-Identifier: BSD-3-Clause
// Snapshots of a job under the simulated runtime: every fault in every state, messages that come
// late, thousands of random interleavings, and restarts that fail.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "tests/rounds.hpp"
#include "pmix-plugin/coordinator/policy.hpp"
#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

// --- every fault in every state ---

enum class Fault {
    wrapper,
    tree,
    rank_ends,
    node,
    empty_node,
    cut_node,
    cut_empty_node,
    client,
    lose_up,
    lose_down,
    lose_local,
    none,
};
constexpr const char* fault_names[] = {"wrapper",    "tree",      "rank_ends",      "node",
                                       "empty_node", "cut_node",  "cut_empty_node", "client",
                                       "lose_up",    "lose_down", "lose_local",     "none"};
constexpr const char* states[] = {"opening", "preparing", "pinging", "holding",
                                  "gating",  "freezing",  "writing", "completing"};

void inject(Cluster& c, Client& user, Fault fault) {
    auto lossy = [&c](bool up) {
        lose_one(c, [up](NodeId f, NodeId t, DaemonMessage type) {
            using enum DaemonMessage;
            return (up ? f == 1 : t == 1) && ((type >= snap_prepare && type <= snap_abort) ||
                                              type == snap_up || type == snap_progress);
        });
    };
    switch (fault) {
        case Fault::wrapper:
            return c.kill_wrapper(1, 1);
        case Fault::tree:
            return c.kill_tree(1, 1);
        case Fault::rank_ends:
            return c.end_rank(1);
        case Fault::node:
            return c.kill_node(1);
        case Fault::empty_node:
            return c.kill_node(3);
        case Fault::cut_node:
            return c.cut(1);
        case Fault::cut_empty_node:
            return c.cut(3);
        case Fault::client:
            return user.vanish();
        case Fault::lose_up:
            return lossy(true);
        case Fault::lose_down:
            return lossy(false);
        case Fault::lose_local:
            return c.lose_one_local();
        case Fault::none:
            return;
    }
}

// What must hold when everything has come to rest.
void judge(Cluster& c, Client& user, Fault fault, const std::string& what) {
    SCOPED_TRACE(what);
    expect_no_violation(c);
    EXPECT_FALSE(c.ps().contains("snapshotting")) << "the coordinator is not idle";
    expect_whole_folder(c);
    const bool over = c.ended[1] || c.job_aborted || c.job_broken;
    // Ranks on a node that is cut off may have to wait until it is not.
    const bool unreachable = fault == Fault::node || fault == Fault::cut_node;
    if (!unreachable && fault != Fault::lose_local) expect_all_run(c);
    if (c.ended[1]) {
        EXPECT_EQ(c.running_copies(1), 0);
    }
    const bool harmless = fault == Fault::wrapper || fault == Fault::empty_node ||
                          fault == Fault::cut_empty_node || fault == Fault::client ||
                          fault == Fault::lose_up || fault == Fault::lose_down;
    if (harmless) {
        EXPECT_FALSE(over);
    }
    if (user.gone()) return;
    ASSERT_EQ(user.results.size(), 1u) << "the client must be told once";
    const Json& r = user.results[0];
    const size_t complete = snapshots(c).size();
    EXPECT_EQ(complete, r["exit"] == 0 ? 1u : 0u) << r;
    if (r["exit"] != 0 && harmless) {
        std::string error = r["error"];
        EXPECT_NE(error.find("the job is unharmed"), std::string::npos) << error;
    }
    if (fault == Fault::none) {
        EXPECT_EQ(r["exit"], 0) << r;
    }
}

// And the job can be saved again.
void expect_next_works(Cluster& c, Fault fault, const std::string& what) {
    SCOPED_TRACE(what);
    c.lose = nullptr;
    c.lose_local = nullptr;
    c.chance.busy_percent = c.chance.fence_percent = 0;
    if (c.ended[1] || c.job_aborted || c.job_broken || fault == Fault::lose_local) return;
    c.heal(1);
    c.run(30 * second);
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    expect_all_run(c);
    expect_sound(c);
}

class SnapshotFaults : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(SnapshotFaults, FaultLeavesJobWholeAndCoordinatorIdle) {
    auto [state, fault_number] = GetParam();
    auto fault = static_cast<Fault>(fault_number);
    for (uint64_t seed = 0, seeds = seeds_of(8); seed < seeds; ++seed) {
        Cluster c(seed, 4, {0, 1, 1, 2});
        Client& user = c.client();
        bool struck = false;
        user.on_phase = [&, s = state](const std::string& phase) {
            if (struck || phase != states[s]) return;
            struck = true;
            // At once, or a little into the state.
            if (seed < 2) return inject(c, user, fault);
            c.daemon(0).after(static_cast<int64_t>(seed) * 60, [&] { inject(c, user, fault); });
        };
        user.ask(checkpoint(seed % 4 == 3 ? "stop" : "continue"));
        c.run(200 * second, [&] { return !user.results.empty(); });
        c.run(60 * second);
        c.signal(SIGCONT);
        c.run(100 * second);
        EXPECT_TRUE(struck);
        judge(c, user, fault, testing::PrintToString(seed));
        expect_next_works(c, fault, testing::PrintToString(seed));
    }
}

std::string fault_name(const testing::TestParamInfo<std::tuple<int, int>>& info) {
    return std::string(states[std::get<0>(info.param)]) + "_" +
           fault_names[std::get<1>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(All, SnapshotFaults,
                         testing::Combine(testing::Range(0, 8), testing::Range(0, 12)), fault_name);

// --- lateness ---

TEST(LateSnapshotMessages, MessagesOfAnEarlierSnapshotAreDropped) {
    Cluster c(20, 3, {0, 1});
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    auto all = c.sent;
    for (const Json& m : all) {
        for (NodeId from : {0u, 1u, 2u}) {
            for (NodeId to : {0u, 1u, 2u}) c.inject(from, to, m);
        }
    }
    for (const char* type :
         {"snap_prepare", "snap_ping", "snap_gate", "snap_ungate", "snap_close", "snap_abort",
          "snap_end", "restart_prepare", "restart_import", "restart_go"}) {
        for (NodeId to : {0u, 1u, 2u}) {
            c.inject(0, to, {{"t", type}, {"seq", 1}, {"try", 9}, {"daemons", 3}, {"epoch", 7}});
        }
    }
    c.run(second);
    expect_all_run(c);
    EXPECT_EQ(snapshots(c).size(), 1u);
    user.results.clear();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    expect_sound(c);
}

TEST(LateSnapshotMessages, MalformedMessagesAreIgnored) {
    Cluster c(21, 3, {0, 1});
    const char* types[] = {"snap_up",   "snap_progress",   "snap_prepare",   "snap_ping",
                           "snap_gate", "snap_ungate",     "snap_close",     "snap_abort",
                           "snap_end",  "restart_prepare", "restart_import", "restart_go"};
    Json values[] = {nullptr,        -1,   1.5,       "x", Json::array({1, "y"}),
                     Json::object(), true, 1ull << 63};
    for (const char* type : types) {
        for (const Json& v : values) {
            for (const char* step : {"ready", "written", "aborted", ""}) {
                Json m = {{"t", type},    {"seq", v},     {"try", v},    {"step", step},
                          {"rows", v},    {"busy", v},    {"failed", v}, {"sums", v},
                          {"daemons", v}, {"without", v}, {"name", v},   {"folder", v}};
                c.inject(2, 0, m);
                c.inject(2, 1, m);
                // An order is the coordinator's: that is trusted to mean it.
                if (!v.is_number_unsigned()) c.inject(0, 1, m);
            }
        }
    }
    c.run(second);
    expect_all_run(c);
}

// --- random interleavings ---

uint64_t random_seeds() {
    return seeds_of(static_cast<uint64_t>(ghost::test::rounds("GHOST_TEST_SEEDS", 400, 4000)));
}

TEST(RandomSnapshots, Interleavings) {
    constexpr const char* thens[] = {"continue", "continue", "stop", "kill"};
    for (uint64_t seed = 1, seeds = random_seeds(); seed <= seeds; ++seed) {
        std::mt19937_64 random(seed);
        Cluster c(seed, 4, {0, 1, 1, 2});
        c.chance.latency_us = 1 + static_cast<int64_t>(random() % 2000);
        c.chance.busy_percent = static_cast<int>(random() % 30);
        c.chance.fence_percent = static_cast<int>(random() % 40);
        c.chance.write_us = static_cast<int64_t>(random() % 20'000);
        auto fault = static_cast<Fault>(random() % 12);
        const std::string then = thens[random() % 4];
        Client& user = c.client();
        user.ask(checkpoint(then));
        c.daemon(0).after(static_cast<int64_t>(random() % 40'000), [&] { inject(c, user, fault); });
        c.run(200 * second, [&] { return !user.results.empty(); });
        c.run(60 * second);
        c.signal(SIGCONT);
        c.run(100 * second);
        const std::string what = "seed " + std::to_string(seed) + " " + then + " " +
                                 fault_names[static_cast<int>(fault)];
        if (c.end_status != 0) {
            EXPECT_EQ(then, "kill") << what;
            EXPECT_EQ(snapshots(c).size(), 1u) << what;
            expect_sound(c);
        } else {
            judge(c, user, fault, what);
            expect_next_works(c, fault, what);
        }
        if (testing::Test::HasFailure()) return;
    }
}

// --- limits ---

// Of many processes, of which each takes its time.
TEST(Snapshots, WrapperThatGetsOnIsWaitedForThoughNoBytesCome) {
    Cluster c(20, 3, {0, 1, 1});
    c.chance.looks = 20;
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(120 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_GT(c.now, 100 * second);
    expect_sound(c);
}

// --- what is said when the job ends ---

TEST(Snapshot, LostRankIsSaidWithTheNewestSnapshotIfThereIsOne) {
    Cluster c(17, 3, {0, 1, 2});
    c.killed_by(SIGKILL, 1);
    EXPECT_TRUE(c.said.empty()) << c.said[0];
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    c.killed_by(SIGKILL, 1);
    ASSERT_EQ(c.said.size(), 1u);
    EXPECT_EQ(c.said[0], "rank 1 was killed by SIGKILL on gn1: `ghost restart " + c.folder() +
                             "/4711-000001` goes on from the job's newest snapshot");
}

TEST(Snapshot, JobBegunFromOneIsSaidToHaveThatUntilItHasItsOwn) {
    Cluster c(17, 3, {0, 1, 2});
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    const std::string from = c.folder() + "/4711-000001";
    c.end_mpirun();
    Cluster again(19, 3, {0, 1, 2}, 0, {}, {{"ghost_restart", from}});
    again.said.clear();
    again.killed_by(0, 2);
    ASSERT_EQ(again.said.size(), 1u);
    EXPECT_NE(again.said[0].find("rank 2 has given up on gn2: `ghost restart " + from + "` "),
              std::string::npos)
        << again.said[0];
}

// --- restarts that fail ---

TEST(Restarts, AllRefusalsAreListedBeforeAnyRankRuns) {
    Cluster c(18, 3, {0, 1, 2});
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    const std::string from = c.folder() + "/4711-000001";
    auto fails = [&](std::vector<NodeId> ranks, const std::string& folder, const char* says,
                     const std::function<void(Cluster&)>& what = nullptr) {
        Cluster again(19, 4, std::move(ranks), 0, {},
                      {{"ghost_restart", folder}, {"sim_early", "1"}});
        if (what) what(again);
        again.run(200 * second, [&] { return again.job_aborted; });
        EXPECT_TRUE(again.job_aborted) << says;
        EXPECT_NE(again.abort_why.find(says), std::string::npos) << again.abort_why;
        EXPECT_NE(again.abort_why.find("no rank has run"), std::string::npos) << again.abort_why;
        for (auto [rank, over] : again.ended) EXPECT_EQ(again.running_copies(rank), 0) << says;
        expect_sound(again);
    };
    fails({0, 1, 2}, from, "4711: it still runs");
    c.end_mpirun();
    fails({0, 1}, from, "it has 3 ranks, 2 were started");
    fails({0, 1, 2}, from + "0", "4711-0000010");
    fails({0, 1, 2}, from, "rank 1 at gn1: import: no luck", [](Cluster& again) {
        again.chance.fail_stage = Stage::importing;
        again.chance.fail_ranks = {1};
    });
    fails({0, 1, 2}, from, "rank 2 at gn2: import: its wrapper ended",
          [](Cluster& again) { again.kill_wrapper(2, 2); });
    fails({0, 1, 2}, from, "nothing was heard for 60 s while checking",
          [](Cluster& again) { again.cut(1); });
    fails({0, 1, 2}, from, "nothing was heard for 60 s while holding", [](Cluster& again) {
        lose_one(again, [](NodeId, NodeId to, DaemonMessage type) {
            return to == 1 && type == DaemonMessage::restart_import;
        });
    });
    fails({0, 1, 2}, from,
          "(nothing has been changed, no rank has run): rank 1 at gn1: check: no file",
          [](Cluster& again) {
              again.chance.fail_stage = Stage::check;
              again.chance.fail_ranks = {1};
          });
    fails({0, 1, 2}, from, "is lost", [](Cluster& again) {
        again.run(300);
        again.kill_node(3);
    });
}

// --- parameters ---

struct GivenParameter : JobView {
    GivenParameter(std::string name, std::string value)
        : name_(std::move(name)), value_(std::move(value)) {}
    std::string job_name() const override { return {}; }
    std::vector<NodeInfo> nodes() const override { return {}; }
    std::string secret() const override { return {}; }
    std::string life() const override { return {}; }
    std::string rank_socket() const override { return {}; }
    std::optional<std::string> parameter(const std::string& name) const override {
        return name == name_ ? std::optional(value_) : std::nullopt;
    }

  private:
    std::string name_, value_;
};

TEST(SnapshotParameters, WhatCannotBeDoneIsNamedAndTheDefaultTaken) {
    std::vector<std::string> wrong;
    EXPECT_EQ(read_policy(GivenParameter("ghost_checkpoint_files", "32M"), wrong).carried,
              uint64_t{32} << 20);
    EXPECT_TRUE(wrong.empty()) << wrong.front();
    EXPECT_EQ(read_policy(GivenParameter("ghost_checkpoint_files", "33M"), wrong).carried,
              uint64_t{64} << 10);
    ASSERT_EQ(wrong.size(), 1u);
    EXPECT_NE(wrong[0].find("parameter ghost_checkpoint_files: "), std::string::npos) << wrong[0];
    EXPECT_NE(wrong[0].find("at most 32M"), std::string::npos) << wrong[0];
    wrong.clear();
    read_policy(GivenParameter("ghost_own_ipc", "perhaps"), wrong);
    ASSERT_EQ(wrong.size(), 1u);
    EXPECT_NE(wrong[0].find("parameter ghost_own_ipc: "), std::string::npos) << wrong[0];
    wrong.clear();
    EXPECT_EQ(read_policy(GivenParameter("ghost_compress", "zip"), wrong).compress, "lz4");
    EXPECT_EQ(read_policy(GivenParameter("ghost_mtbf", "often"), wrong).mtbf_us, 0);
    EXPECT_FALSE(
        read_policy(GivenParameter("ghost_checkpoint_interval", "soon"), wrong).interval_auto);
    ASSERT_EQ(wrong.size(), 3u);
    for (const std::string& one : wrong)
        EXPECT_NE(one.find("its default is used"), std::string::npos) << one;
}

}  // namespace
}  // namespace ghost::plugin::sim
