// SPDX-License-Identifier: BSD-3-Clause
// Recoveries under the simulated runtime: what is lost, when, and how often.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

using Parameters = std::map<std::string, std::string>;

const std::string goes_on = ": the job goes on from snapshot ";

size_t recoveries(const Cluster& c) {
    return static_cast<size_t>(std::ranges::count_if(
        c.said, [](const std::string& line) { return line.find(goes_on) != line.npos; }));
}

bool was_said(const Cluster& c, const std::string& part) {
    return std::ranges::any_of(c.said,
                               [&](const auto& line) { return line.find(part) != line.npos; });
}

// Ranks 0 to 3 on nodes 0, 1, 2, 2 of five, saved.
struct Saved : Cluster {
    explicit Saved(uint64_t seed, Parameters parameters = {{"ghost_recover", "all"}})
        : Cluster(seed, 5, {0, 1, 2, 2}, 2, {}, std::move(parameters)) {
        user.ask(checkpoint());
        EXPECT_TRUE(run(5 * second, [&] { return !user.results.empty(); }));
    }
    bool recovers(size_t times = 1) {
        return run(20 * second, [&] { return recoveries(*this) >= times || job_aborted; }) &&
               recoveries(*this) >= times;
    }
    Client& user = client();
};

TEST(Recovery, RankThatIsKilled) {
    Saved c(1);
    c.kill_tree(1, 1);
    ASSERT_TRUE(c.recovers());
    EXPECT_TRUE(was_said(c, "rank 1 was killed by SIGKILL on gn1" + goes_on + "4711-000001"));
    c.run(second);
    expect_all_run(c);
    for (RankId rank = 0; rank < 4; rank++) EXPECT_EQ(c.node_of(rank), std::min(rank, 2U)) << rank;
    const Json ps = c.ps();
    EXPECT_EQ(ps["epoch"], 1);
    EXPECT_FALSE(ps.contains("restarting")) << ps;
    // Everything goes on as before.
    c.user.ask(migrate({1}, "gn3"));
    c.user.ask(checkpoint());
    ASSERT_TRUE(c.run(9 * second, [&] { return c.user.results.size() == 3; })) << c.ps();
    EXPECT_EQ(c.user.results[1]["exit"], 0) << c.user.results[1];
    EXPECT_EQ(c.user.results[2]["exit"], 0) << c.user.results[2];
    expect_sound(c);
}

// Three losses in some seconds: the job is saved more often than the user's figure asks for.
TEST(Recovery, LossesThatWereSeenCount) {
    Saved c(
        1,
        {{"ghost_recover", "all"}, {"ghost_checkpoint_interval", "auto"}, {"ghost_mtbf", "10d"}});
    c.chance.write_us = second;
    EXPECT_EQ(c.ps()["interval"]["mtbf_us"], 864'000 * second);
    for (const RankId rank : {0u, 1u, 2u}) {
        c.kill_tree(rank, rank);
        ASSERT_TRUE(c.recovers(rank + 1));
        c.run(5 * second);
    }
    c.run(40 * second);
    const Json interval = c.ps()["interval"];
    EXPECT_LT(interval["mtbf_us"], 60 * second) << interval;
    EXPECT_LT(interval["us"], 60 * second) << interval;
    expect_sound(c);
}

// To a node that has no ranks.
TEST(Recovery, NodeThatIsLost) {
    Saved c(2);
    c.kill_node(2);
    ASSERT_TRUE(c.recovers());
    c.run(second);
    expect_all_run(c);
    EXPECT_EQ(c.node_of(2), 3U);
    EXPECT_EQ(c.node_of(3), 4U);
    c.kill_node(1);  // slots that are free
    ASSERT_TRUE(c.recovers(2));
    c.run(second);
    expect_all_run(c);
    EXPECT_EQ(c.node_of(1), 0U);
    expect_sound(c);
}

// One without ranks, of which an answer is waited for.
TEST(Recovery, AnotherNodeIsLostMeanwhile) {
    for (const int64_t us : {0, 10'000, 20'500, 21'000, 22'000, 24'000}) {
        SCOPED_TRACE(us);
        Saved c(2);
        c.kill_tree(1, 1);
        c.run(us);
        c.kill_node(4);
        const int64_t began = c.now;
        ASSERT_TRUE(c.recovers());
        EXPECT_LT(c.now - began, second);
        c.run(second);
        expect_all_run(c);
        expect_sound(c);
    }
}

TEST(Recovery, NothingToGoOnFrom) {
    Cluster c(3, 3, {0, 1}, 0, {}, {{"ghost_recover", "all"}});
    c.run(second);
    c.kill_tree(1, 1);
    c.run(second);
    EXPECT_TRUE(c.ended[1]);
    EXPECT_TRUE(was_said(c, "it has no snapshot yet"));
    EXPECT_EQ(recoveries(c), 0U);
}

TEST(Recovery, OnlyFromWhatWasAskedFor) {
    Saved node(4, {{"ghost_recover", "node"}});
    node.kill_tree(1, 1);
    node.run(second);
    EXPECT_TRUE(node.ended[1]);
    Saved rank(4, {{"ghost_recover", "rank"}});
    rank.kill_node(1);
    rank.run(second);
    EXPECT_TRUE(rank.job_aborted);
    EXPECT_EQ(recoveries(node) + recoveries(rank), 0U);
}

TEST(Recovery, NoRoom) {
    Cluster c(5, 3, {0, 0, 1, 1, 2, 2}, 2, {}, {{"ghost_recover", "all"}});
    Client& user = c.client();
    user.ask(checkpoint());
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    c.kill_node(1);
    c.run(second, [&] { return c.job_aborted; });
    ASSERT_TRUE(c.job_aborted);
    EXPECT_NE(
        c.abort_why.find("node gn1 was lost, and the job could not go on from its snapshot: "),
        std::string::npos)
        << c.abort_why;
    EXPECT_NE(c.abort_why.find("`ghost restart "), std::string::npos) << c.abort_why;
}

TEST(Recovery, SoOftenAtMost) {
    Saved c(6, {{"ghost_recover", "all"}, {"ghost_recover_max", "2"}});
    for (size_t times = 1; times <= 2; times++) {
        c.kill_tree(1, 1);
        ASSERT_TRUE(c.recovers(times));
        c.run(static_cast<int64_t>(times) * 10 * second);  // not at the same point
    }
    c.kill_tree(1, 1);
    c.run(second);
    EXPECT_TRUE(c.ended[1]);
    EXPECT_TRUE(was_said(c, "it has gone on 2 times already (ghost_recover_max)"));
}

TEST(Recovery, ImportThatFailsIsTriedAnew) {
    Saved c(7);
    c.chance.fail_stage = Stage::importing;
    c.chance.fail_ranks = {2};
    c.kill_tree(1, 1);
    c.run(10 * second, [&] { return c.job_aborted; });
    EXPECT_TRUE(c.job_aborted);
    EXPECT_NE(c.abort_why.find("no luck"), std::string::npos) << c.abort_why;
    size_t stops = 0;
    for (const Json& m : c.sent) stops += type_of(m) == DaemonMessage::recover_stop;
    EXPECT_GE(stops, 5U);
}

// Who asked is told at once; what waits goes on waiting.
TEST(Recovery, RequestsUnderWay) {
    Saved c(8);
    bool killed = false;
    c.user.on_phase = [&](const std::string& phase) {
        if (phase == "transferring" && !std::exchange(killed, true)) c.kill_tree(2, 2);
    };
    c.user.ask(migrate({1}, "gn3"));
    Client& other = c.client();
    other.ask(migrate({1}, "gn4"));
    ASSERT_TRUE(c.recovers());
    ASSERT_TRUE(
        c.run(9 * second, [&] { return c.user.results.size() == 2 && other.results.size() == 1; }));
    EXPECT_NE(c.user.results[1].dump().find("rank 2 was killed by SIGKILL"), std::string::npos)
        << c.user.results[1];
    EXPECT_EQ(other.results[0]["exit"], 0) << other.results[0];
    expect_all_run(c);
    expect_sound(c);
}

// At any moment of a move, a snapshot, or a recovery.
TEST(Recovery, RandomLosses) {
    const uint64_t seeds = seeds_of(200);
    size_t done = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        SCOPED_TRACE(seed);
        std::mt19937_64 random(seed);
        Saved c(seed, {{"ghost_recover", "all"}, {"ghost_recover_max", "1000"}});
        bool away = false;
        RankId rank = 0;
        for (int i = 0; i < 5 && !c.job_aborted; i++) {
            // The same one twice after the same time would be given up.
            rank = (rank + 1) % 4;
            if (random() % 2 == 0) c.run((2 * i + 2) * second);
            if (random() % 2 == 0)
                c.user.ask(migrate({rank}, fmt::format("gn{}", random() % 5),
                                   random() % 2 == 0 ? "stop" : "live"));
            else if (random() % 2 == 0)
                c.user.ask(checkpoint());
            c.run(static_cast<int64_t>(random() % 40'000));
            const auto node = static_cast<NodeId>(1 + random() % 4);
            if (random() % 4 == 0 && !std::exchange(away, true))
                c.kill_node(node);
            else
                for (NodeId at = 0; at < c.size(); at++) c.kill_tree(at, rank);
        }
        c.run(60 * second);
        done += recoveries(c);
        EXPECT_FALSE(c.job_aborted) << c.abort_why;
        EXPECT_TRUE(std::ranges::none_of(c.ended, [](const auto& one) { return one.second; }))
            << (c.said.empty() ? std::string() : c.said.back());
        expect_all_run(c);
        expect_sound(c);
        if (HasFailure()) break;
    }
    std::printf("%lu seeds, %zu recoveries\n", seeds, done);
}

}  // namespace
}  // namespace ghost::plugin::sim
