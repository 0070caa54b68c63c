// SPDX-License-Identifier: BSD-3-Clause
// Moves of ranks under the simulated runtime: the ordinary life and refusals. Faults are in
// plugin_move_faults_test.cpp, who may speak to a daemon in plugin_hello_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sys/resource.h>

#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/json_packet.hpp"
#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

// --- the ordinary life ---

TEST(Move, HappyPath) {
    Cluster c(1, 3, {0, 1});
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    const Json& r = user.results[0];
    EXPECT_EQ(r["exit"], 0) << r;
    const Json& row = r["result"][0];
    EXPECT_EQ(row["rank"], 1);
    EXPECT_EQ(row["from"], "gn1");
    EXPECT_EQ(row["to"], "gn2");
    EXPECT_EQ(row["bytes"], 4096);
    EXPECT_EQ(row["rounds"], 1);
    EXPECT_EQ(row["epoch"], 1);
    EXPECT_EQ(row["moved"], true);
    EXPECT_GT(row["downtime_us"], 0);
    EXPECT_GE(row["total_us"], row["downtime_us"]);
    EXPECT_EQ(c.node_of(1), 2u);
    EXPECT_TRUE(c.rank_attached(1));
    EXPECT_EQ(c.settles, 1);
    EXPECT_EQ(c.votes, 3);
    std::vector<std::string> phases = {"preparing",    "connecting", "holding", "gating",
                                       "transferring", "switching",  "going"};
    EXPECT_EQ(user.phases, phases);
    Json ps = c.ps();
    EXPECT_EQ(ps["ranks"][1]["node"], "gn2");
    EXPECT_EQ(ps["ranks"][1]["epoch"], 1);
    EXPECT_FALSE(ps.contains("move"));
    expect_sound(c);
}

// Processes of the user's that connect and say nothing, as many as the kernel keeps waiting.
TEST(Move, IdleConnectionsKeepNobodyWaiting) {
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);
    setrlimit(RLIMIT_NOFILE, &files);
    Cluster c(1, 3, {0, 1});
    const std::string folder = c.folder().substr(0, c.folder().rfind('/'));
    std::vector<ControlSocket> idle;
    for (const std::string& at : {folder + "/ghost.sock", c.socket_of(1), c.socket_of(2)}) {
        for (int i = 0; i < 300; i++) {
            auto one = ControlSocket::connect(at);
            ASSERT_TRUE(one.ok()) << i << " " << one.error().message();
            idle.push_back(std::move(*one));
            if (i % 100 == 0) c.run(1000, [] { return false; });
        }
    }
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_EQ(c.node_of(1), 2u);
    c.run(20 * second, [] { return false; });
    for (const ControlSocket& one : idle) EXPECT_EQ(one.receive(0).error().code, Code::peer_lost);
    expect_sound(c);
}

TEST(Move, ThereAndBackTwice) {
    Cluster c(2, 3, {0, 1});
    Client& user = c.client();
    for (const char* to : {"gn2", "gn1", "gn0", "gn1"}) {
        user.results.clear();
        user.ask(migrate({1}, to));
        ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    }
    EXPECT_EQ(c.ps()["epoch"], 4);
    EXPECT_EQ(c.node_of(1), 1u);
    expect_sound(c);
}

TEST(Move, BusyRankIsTriedAgain) {
    Cluster c(3, 3, {0, 1});
    c.chance.busy_percent = 60;
    c.chance.fence_percent = 60;
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(20 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    expect_sound(c);
}

TEST(Move, AlwaysBusyRankEndsMoveUnharmed) {
    Cluster c(4, 3, {0, 1});
    c.chance.busy_percent = 100;
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(30 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("the job is unharmed: rank 1 goes on at gn1"), std::string::npos) << error;
    EXPECT_EQ(c.node_of(1), 1u);
    EXPECT_EQ(c.releases, c.holds);
    expect_sound(c);
}

// In its first PMIx_Get it waits for what a rank publishes that stands in a fence.
TEST(Move, BusyRankDoesNotKeepTheJobBehindFences) {
    Cluster c(5, 3, {0, 1});
    c.chance.waits_behind_fences = true;
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_EQ(c.holds, 2);
    expect_sound(c);
}

// The target sees the stream end before the source's own reason has arrived.
TEST(Move, RefusalOfTheSourceCrossesTheTargetsFailure) {
    Cluster c(8, 3, {0, 1});
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    auto transferring = [&] {
        return !user.phases.empty() && user.phases.back() == "transferring";
    };
    ASSERT_TRUE(c.run(5 * second, transferring));
    Json failed = {{"t", "failed"}, {"seq", 1}, {"rank", 1}};
    failed["stage"] = "import";
    failed["why"] = "the ghost ends too early";
    c.inject(2, 0, failed);
    failed["stage"] = "check";
    failed["why"] = "descriptor 21 cannot move";
    c.inject(1, 0, failed);
    ASSERT_TRUE(c.run(20 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
    std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("descriptor 21"), std::string::npos) << error;
    EXPECT_NE(error.find("the job is unharmed: rank 1 goes on at gn1"), std::string::npos) << error;
    EXPECT_EQ(c.node_of(1), 1u);
    expect_sound(c);
}

// Nothing has been asked of the rank yet. Both ends say it, in whatever order; it is said once.
TEST(Move, WhatTheTargetLacksIsNamedWithTheTarget) {
    for (const auto& [first, other] : {std::pair{1, 2}, std::pair{2, 1}}) {
        Cluster c(8, 3, {0, 1});
        Client& user = c.client();
        user.ask(migrate({1}, "gn2"));
        auto connecting = [&] {
            return !user.phases.empty() && user.phases.back() == "connecting";
        };
        ASSERT_TRUE(c.run(5 * second, connecting));
        const Json failed = {{"t", "failed"},
                             {"seq", 1},
                             {"rank", 1},
                             {"stage", "target"},
                             {"why", "/tmp/data: is missing"}};
        for (const int node : {first, other}) c.inject(static_cast<NodeId>(node), 0, failed);
        ASSERT_TRUE(c.run(20 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
        EXPECT_EQ(user.results[0]["error"],
                  "rank 1 was not moved from gn1 to gn2: gn2 cannot take it: /tmp/data: is missing "
                  "(provide that there, or choose another node); the job is unharmed: rank 1 goes "
                  "on at gn1");
        EXPECT_EQ(c.holds, 0);
        expect_sound(c);
    }
}

TEST(Move, SeveralRanksAndClientsOneAtATime) {
    Cluster c(5, 3, {0, 1, 1});
    Client& first = c.client();
    Client& other = c.client();
    first.ask(migrate({1, 2}, "gn2"));
    other.ask(migrate({0}, "gn1"));
    ASSERT_TRUE(
        c.run(9 * second, [&] { return !first.results.empty() && !other.results.empty(); }));
    EXPECT_EQ(first.results[0]["result"].size(), 2u);
    EXPECT_EQ(c.node_of(0), 1u);
    EXPECT_EQ(c.node_of(1), 2u);
    EXPECT_EQ(c.node_of(2), 2u);
    EXPECT_EQ(c.settles, 3);
    expect_sound(c);
}

TEST(Move, ClientGoneCancelsItsQueuedRequests) {
    Cluster c(6, 3, {0, 1, 1});
    Client& first = c.client();
    Client& other = c.client();
    first.ask(migrate({1}, "gn2"));
    c.run(100);
    other.ask(migrate({0}, "gn2"));
    c.run(100);
    first.vanish();
    other.vanish();
    c.run(5 * second);
    EXPECT_EQ(c.node_of(1), 2u);
    EXPECT_EQ(c.node_of(0), 0u);
    expect_sound(c);
}

TEST(Move, RankEndsRightAfterGo) {
    Cluster c(7, 3, {0, 1});
    c.chance.ends_at_once = true;
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(20 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    c.run(second);
    EXPECT_TRUE(c.ended[1]);
    EXPECT_FALSE(c.job_aborted) << c.abort_why;
    expect_sound(c);
}

// --- ranks that cannot act ---

TEST(Standstill, StoppedRankIsRefusedAtOnceAndMovesLater) {
    for (const bool job : {false, true}) {
        Cluster c(9, 3, {0, 1});
        c.stop_rank(1, job);
        Client& user = c.client();
        user.ask(migrate({1}, "gn2"));
        ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 1);
        const std::string error = user.results[0]["error"];
        EXPECT_NE(error.find(job ? "rank 1 is suspended with its job" : "rank 1 is stopped"),
                  std::string::npos)
            << error;
        EXPECT_EQ(error.find("goes on at"), std::string::npos) << error;
        c.continue_rank(1);
        user.ask(migrate({1}, "gn2"));
        ASSERT_TRUE(c.run(5 * second, [&] { return user.results.size() == 2; }));
        EXPECT_EQ(user.results[1]["exit"], 0) << user.results[1];
        EXPECT_EQ(c.node_of(1), 2u);
        expect_sound(c);
    }
}

// Refused within seconds, and never called harmed; what is decided waits. Then all goes on.
TEST(Standstill, RankIsStoppedInEveryPhase) {
    for (const bool job : {false, true}) {
        for (const char* phase :
             {"preparing", "connecting", "holding", "gating", "transferring", "switching"}) {
            SCOPED_TRACE(fmt::format("{}, the job: {}", phase, job));
            Cluster c(10, 3, {0, 1});
            Client& user = c.client();
            user.on_phase = [&](const std::string& now) {
                if (now == phase) c.stop_rank(1, job);
            };
            user.ask(migrate({1}, "gn2"));
            c.run(6 * second, [&] { return !user.results.empty(); });
            const bool refused = !user.results.empty() && user.results[0]["exit"] == 1;
            c.continue_rank(1);
            ASSERT_TRUE(c.run(40 * second, [&] { return !user.results.empty(); }));
            EXPECT_EQ(user.results[0]["exit"], refused ? 1 : 0) << user.results[0];
            c.run(second);
            EXPECT_FALSE(c.job_aborted) << c.abort_why;
            user.on_phase = nullptr;
            user.ask(migrate({1}, refused ? "gn2" : "gn0"));
            ASSERT_TRUE(c.run(5 * second, [&] { return user.results.size() == 2; }));
            EXPECT_EQ(user.results[1]["exit"], 0) << user.results[1];
            expect_sound(c);
        }
    }
}

// An mpirun that was suspended finds all its timers late.
TEST(Standstill, EverythingIsStoppedForAnHourInEveryPhase) {
    for (const char* phase :
         {"preparing", "connecting", "holding", "gating", "transferring", "switching", "going"}) {
        SCOPED_TRACE(phase);
        Cluster c(11, 3, {0, 1});
        Client& user = c.client();
        user.on_phase = [&](const std::string& now) {
            if (now == phase) c.stand(3600 * second);
        };
        user.ask(migrate({1}, "gn2"));
        ASSERT_TRUE(c.run(3700 * second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        EXPECT_FALSE(c.job_aborted) << c.abort_why;
        EXPECT_EQ(c.node_of(1), 2u);
        expect_sound(c);
    }
}

// One that has no time for them finds them late as well, again and again: it does not wait for
// ever.
TEST(Standstill, LimitsEndAlsoWhereAllTimersAreLate) {
    Cluster c(29, 3, {0, 1});
    c.chance.late_us = 2 * second;
    c.lose = [](NodeId, NodeId, const Json& m) { return type_of(m) == DaemonMessage::ready; };
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(300 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
    expect_sound(c);
}

TEST(Standstill, RankThatHasLeftMpiIsRefusedAtOnce) {
    Cluster c(12, 3, {0, 1});
    c.say_bye(1);
    c.run(second);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    const std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("rank 1 is in MPI_Finalize or past it"), std::string::npos) << error;
    expect_sound(c);
}

TEST(Standstill, PsShowsHowRanksStand) {
    Cluster c(14, 3, {0, 1, 2, 1});
    const auto states = [&] {
        std::string out;
        const Json ps = c.ps();
        for (const Json& rank : ps["ranks"]) out += rank["state"].get<std::string>() + "; ";
        return out;
    };
    EXPECT_EQ(states(), "running; running; running; running; ");
    c.stop_rank(0);
    c.stop_rank(1, true);
    c.say_bye(2);
    c.starting.insert(3);
    c.run(second);
    EXPECT_EQ(states(), "stopped; suspended; after MPI_Finalize; not in MPI yet; ");
    c.continue_rank(0);
    c.continue_rank(1);
    c.starting.clear();
    EXPECT_EQ(states(), "running; running; after MPI_Finalize; running; ");
    c.cut(1);  // and is answered without it
    const int64_t begun = c.now;
    EXPECT_EQ(c.ps()["ranks"].size(), 4u);
    EXPECT_LT(c.now - begun, second / 2);
    c.heal(1);
    expect_sound(c);
}

// Daemons that are on their way must not be spoken to.
TEST(Standstill, PsAsksNoDaemonBeforeTheJobIsLaunched) {
    Cluster c(16, 3, {0, 1}, 0, {}, {{"sim_early", "1"}});
    EXPECT_EQ(c.ps()["ranks"].size(), 2u);
    EXPECT_TRUE(std::ranges::none_of(
        c.sent, [](const Json& m) { return type_of(m) == DaemonMessage::ping; }));
}

TEST(Standstill, RankBeforeMpiInitIsRefusedAtOnce) {
    Cluster c(15, 3, {0, 1});
    c.starting.insert(1);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    const std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("rank 1 is not in MPI yet"), std::string::npos) << error;
    expect_sound(c);
}

TEST(Standstill, RankInMpiInitIsWaitedFor) {
    Cluster c(17, 3, {0, 1}, 0, {}, {{"sim_early", "1"}});
    c.in_init.insert(1);
    c.run(second);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    c.run(20 * second);
    EXPECT_TRUE(user.results.empty()) << user.results[0];
    EXPECT_EQ(user.phases.front(), "checking");
    c.in_init.clear();
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_EQ(c.node_of(1), 2u);
    expect_sound(c);
}

TEST(Standstill, RankThatStaysInMpiInitIsRefusedAfterAMinute) {
    Cluster c(18, 3, {0, 1}, 0, {}, {{"sim_early", "1"}});
    c.in_init.insert(1);
    c.run(second);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(61 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    const std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("rank 1 is in MPI_Init"), std::string::npos) << error;
    c.in_init.clear();
    c.run(second);
    expect_sound(c);
}

// Before it has left its server a rank that says nothing is not harmed: its gates open themselves.
TEST(Standstill, SilenceBeforeTheRankLeftItsServerIsNoHarm) {
    Cluster c(13, 3, {0, 1});
    Client& user = c.client();
    user.on_phase = [&](const std::string& now) {
        if (now == "gating") c.lose_local = [](const std::string&) { return true; };
    };
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(60 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1) << user.results[0];
    const std::string error = user.results[0]["error"];
    EXPECT_NE(error.find("did not confirm that the rank goes on (it does by itself"),
              std::string::npos)
        << error;
}

// --- refusals ---

// Whoever sends it something for the first time must not wait for it.
TEST(Ends, EverybodyIsToldOfARankThatHasEnded) {
    Cluster c(26, 3, {0, 1, 1, 2});
    c.parameters["orte_allowed_exit_without_sync"] = "1";
    Client& user = c.client();
    user.ask(migrate({2}, "gn2"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_FALSE(c.end_known(1, false));
    c.end_rank(1);
    EXPECT_TRUE(c.run(second, [&] { return c.end_known(1, true); }));
    c.end_rank(2);
    EXPECT_TRUE(c.run(second, [&] { return c.end_known(2, true); }));
    EXPECT_FALSE(c.end_known(3, false));
    expect_sound(c);
}

// One that is told where they are when it comes to a node.
TEST(Ends, RankThatMovesIsToldOnArrival) {
    Cluster c(27, 3, {0, 1, 2});
    c.end_rank(2);
    c.run(second);
    EXPECT_FALSE(c.end_known(2, false)) << "the runtime may end the job for it";
    ASSERT_TRUE(c.run(5 * second, [&] { return c.end_known(2, true); }));
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_TRUE(c.end_known(2, true));
    expect_sound(c);
}

// By MPI_Finalize: its peers know from itself, and at a job's end there is enough to do.
TEST(Ends, RankThatHasLeftMpiIsNotTold) {
    Cluster c(28, 3, {0, 1, 2});
    c.say_bye(1);
    c.run(second);
    c.end_rank(1);
    c.run(10 * second);
    EXPECT_FALSE(c.end_known(1, false));
    expect_sound(c);
}

TEST(Move, Refusals) {
    struct Case {
        Json ask;
        const char* says;
    } cases[] = {
        {migrate({7}, "gn2"), "there is no rank 7"},
        {migrate({1}, "nowhere"), "not part of the job"},
        {migrate({1}, "gn0"), "is full: 1 of 1 slots"},
        {migrate({2}, "gn2"), "rank 2 has ended"},
        {{{"t", "migrate"}, {"ranks", {1}}, {"to", "gn2"}, {"mode", "lazy"}}, "--mode stop"},
        {migrate({}, "gn2"), "at least one rank"},
        {{{"t", "migrate"}, {"ranks", {1}}, {"to", "gn2"}, {"all_from", "gn1"}},
         "at least one rank"},
    };
    Cluster c(8, 3, {0, 1, 1}, 1);
    c.end_rank(2);
    c.run(second);
    Client& user = c.client();
    for (const Case& one : cases) {
        user.results.clear();
        user.ask(one.ask);
        ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); })) << one.says;
        EXPECT_EQ(user.results[0]["exit"], 1);
        std::string error = user.results[0]["error"];
        EXPECT_NE(error.find(one.says), std::string::npos) << error;
    }
    EXPECT_EQ(c.holds, 0);
    EXPECT_EQ(c.node_of(1), 1u);
    expect_sound(c);
}

TEST(Move, JobThatHasEndedIsSaidToHaveEnded) {
    Cluster c(30, 3, {0, 1});
    c.end_rank(0);
    c.end_rank(1);
    c.run(second);
    Client& user = c.client();
    for (const Json& ask : {migrate({1}, "gn2"), Json{{"t", "checkpoint"}, {"then", "continue"}}}) {
        user.results.clear();
        user.ask(ask);
        ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 1);
        const std::string error = user.results[0]["error"];
        EXPECT_TRUE(error.ends_with("the job has ended")) << error;
    }
}

// What is no request of the protocol is answered by what is wrong in it, and nothing is moved.
TEST(Move, MessagesThatCannotBeReadAreAnsweredByAnError) {
    struct Case {
        Json ask;
        const char* says;
    } cases[] = {
        {{{"t", "migrate"}, {"ranks", "1"}, {"to", "gn2"}}, "migrate: ranks is no list"},
        {{{"t", "migrate"}, {"ranks", {-1}}, {"to", "gn2"}}, "migrate: ranks[0] is no whole"},
        {{{"t", "migrate"}, {"ranks", {1}}, {"to", 3}}, "migrate: to is no text"},
        {{{"t", "migrate"}, {"to", "gn2"}}, "migrate: ranks is missing"},
        {{{"t", "dance"}}, "unknown message dance"},
        {{{"ranks", {1}}}, "no type"},
    };
    Cluster c(8, 3, {0, 1, 1}, 1);
    Client& user = c.client();
    for (const Case& one : cases) {
        user.errors.clear();
        user.ask(one.ask);
        ASSERT_TRUE(c.run(second, [&] { return !user.errors.empty(); })) << one.says;
        EXPECT_NE(user.errors[0].find(one.says), std::string::npos) << user.errors[0];
    }
    EXPECT_TRUE(user.results.empty());
    user.errors.clear();
    user.ask({{"t", "error"}, {"why", "no"}});  // never answered
    user.ask(migrate({1}, "gn1"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_TRUE(user.errors.empty());
    EXPECT_EQ(c.node_of(1), 1u);
    expect_sound(c);
}

TEST(Move, RankAlreadyThereIsNoError) {
    Cluster c(9, 2, {0, 1}, 1);
    Client& user = c.client();
    user.ask(migrate({1}, "gn1"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0);
    EXPECT_EQ(user.results[0]["result"][0]["moved"], false);
    expect_sound(c);
}

TEST(Move, OversubscriptionMayBeAllowed) {
    CoordinatorSettings s;
    s.oversubscribe = true;
    Cluster c(10, 2, {0, 1}, 1, s);
    Client& user = c.client();
    user.ask(migrate({1}, "gn0"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
}

// --- lateness ---

TEST(Move, LateMessagesAreIgnored) {
    Cluster c(11, 3, {0, 1});
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    auto all = c.sent;
    for (int round = 0; round < 2; ++round) {
        for (const Json& m : all) {
            for (NodeId from : {0u, 1u, 2u}) c.inject(from, 0, m);
            for (NodeId to : {1u, 2u}) c.inject(0, to, m);
        }
        for (const char* type : {"abort", "prepare", "connect", "gate", "go", "switch"}) {
            for (NodeId to : {0u, 1u, 2u}) {
                c.inject(0, to, {{"t", type}, {"seq", 1}, {"rank", 1}, {"from", 1}, {"to", 2}});
            }
        }
        c.run(second);
        EXPECT_EQ(c.node_of(1), 2u);
        EXPECT_EQ(c.running_copies(1), 1);
        EXPECT_EQ(c.settles, 1);
        user.results.clear();
        user.ask(migrate({1}, "gn2"));
        ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["result"][0]["moved"], false);
    }
    expect_sound(c);
}

TEST(Move, MalformedMessagesAreIgnored) {
    Cluster c(12, 3, {0, 1});
    const char* types[] = {"prepare", "connect",  "gate",    "switch", "go",   "abort",
                           "ping",    "location", "ready",   "held",   "done", "located",
                           "failed",  "switched", "aborted", "pong",   "busy", ""};
    Json values[] = {nullptr,        -1,   1.5,       "x", Json::array({1, "y"}),
                     Json::object(), true, 1ull << 63};
    for (const char* type : types) {
        for (const Json& v : values) {
            Json m = {{"t", type}, {"seq", v}, {"rank", v}, {"location", v}, {"entries", v},
                      {"n", v},    {"why", v}, {"to", v},   {"epoch", v}};
            c.inject(2, 0, m);
            // An impossible switch would be obeyed by the nodes: the coordinator is trusted there.
            if (std::string(type) != "switch") c.inject(0, 1, m);
        }
    }
    for (const Json& v : values) c.inject(1, 0, v);
    c.run(second);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    c.run(5 * second, [&] { return !user.results.empty(); });
    EXPECT_EQ(c.running_copies(1), 1);
}

// --- daemons ---

TEST(Nodes, SilentEmptyNodeIsGivenUpAndTheJobGoesOn) {
    Cluster c(14, 3, {0, 1});
    c.cut(2);
    c.run(9 * second);
    EXPECT_TRUE(c.given_up.empty());
    c.run(6 * second);
    EXPECT_EQ(c.given_up, std::set<NodeId>{2});
    EXPECT_FALSE(c.job_aborted);
    Client& user = c.client();
    user.ask(migrate({1}, "gn0"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    user.results.clear();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    expect_sound(c);
}

TEST(Nodes, EmptiedNodeIsGivenUpAlsoAfterTheJobHasEnded) {
    Cluster c(15, 3, {0, 1});
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    c.cut(1);
    c.end_rank(0);
    c.end_rank(1);
    c.run(15 * second);
    EXPECT_EQ(c.given_up, std::set<NodeId>{1});
}

TEST(Nodes, SilentNodeWithRanksIsNotGivenUp) {
    Cluster c(16, 3, {0, 1});
    c.cut(1);
    c.run(30 * second);
    EXPECT_TRUE(c.given_up.empty());
    c.heal(1);
    c.run(5 * second);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    expect_sound(c);
}

// Its answer comes late: there is no processor for the wrapper, while the daemon answers.
TEST(Nodes, SlowNodeIsWaitedForAsLongAsItAnswers) {
    for (const DaemonMessage late :
         {DaemonMessage::ready, DaemonMessage::connected, DaemonMessage::done}) {
        Cluster c(31, 3, {0, 1});
        Client& user = c.client();
        std::function<void()> say;
        c.lose = [&](NodeId from, NodeId to, const Json& m) {
            if (say || type_of(m) != late) return false;
            say = [&c, from, to, m] { c.inject(from, to, m); };
            return true;
        };
        user.ask(migrate({1}, "gn2"));
        EXPECT_FALSE(c.run(45 * second, [&] { return !user.results.empty(); }));
        ASSERT_TRUE(say);
        say();
        ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        EXPECT_FALSE(c.job_aborted) << c.abort_why;
        EXPECT_EQ(c.node_of(1), 2u);
        expect_sound(c);
    }
}

// It does not answer any more: not for that long. Or it does, and nothing comes of it.
TEST(Nodes, NodeThatIsNotReadyEndsTheMove) {
    for (const bool answers : {false, true}) {
        Cluster c(32, 3, {0, 1, 2});
        Client& user = c.client();
        c.lose = [](NodeId, NodeId, const Json& m) { return type_of(m) == DaemonMessage::ready; };
        if (!answers) c.cut(2);
        user.ask(migrate({1}, "gn2"));
        ASSERT_TRUE(c.run(70 * second, [&] { return !user.results.empty(); }));
        const std::string why = user.results[0]["result"][0]["why"];
        const std::string seconds = answers ? "60" : "10";
        EXPECT_NE(why.find("gn2 was not ready within " + seconds + " s"), why.npos) << why;
        c.heal(2);
        c.run(30 * second);
        EXPECT_EQ(c.node_of(1), 1u);
        expect_sound(c);
    }
}

// A rank must not stay frozen while the move waits for a daemon that is cut off.
TEST(Nodes, CutThirdNodeDelaysTheMoveBeforeTheGate) {
    Cluster c(17, 4, {0, 1});
    c.cut(3);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(30 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_LT(user.results[0]["result"][0]["downtime_us"], second);
    EXPECT_EQ(c.given_up, std::set<NodeId>{3});
    expect_sound(c);
}

TEST(Nodes, DaemonWithRanksThatMissesTheSwitchHoldsTheFences) {
    Cluster c(18, 4, {0, 1, 3});
    c.lose = [](NodeId from, NodeId, const Json& m) {
        return from == 3 && type_of(m) == DaemonMessage::switched;
    };
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(30 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    EXPECT_EQ(c.held, 1);
    user.results.clear();
    user.ask(migrate({1}, "gn0"));
    ASSERT_TRUE(c.run(second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 1);
    c.lose = nullptr;
    c.inject(3, 0, {{"t", "switched"}, {"seq", 1}, {"rank", 1}, {"votes", 1}});
    c.run(second);
    EXPECT_EQ(c.votes, 4);
    expect_sound(c);
}

// --- an earlier life of the job ---

// A daemon behind a cut that is gone has the number of one of this life, and its epochs may be the
// higher ones.
TEST(Lives, MessagesOfAnotherLifeAreDropped) {
    const auto epoch_of = [](Cluster& c, RankId rank) {
        return c.ps()["ranks"][rank]["epoch"].get<int>();
    };
    for (const bool other : {true, false}) {
        SCOPED_TRACE(other);
        Cluster c(31, 3, {0, 1});
        const std::string life = other ? "01d" : job_life;
        Json location = {{"rank", 1}, {"epoch", 9}, {"node", 2}, {"node_name", "gn2"}};
        location.update({{"attached", true}, {"tcp", Json::array()}, {"unix", "@old"}});
        c.inject(1, 0, {{"t", "located"}, {"location", location}}, life);
        c.inject(0, 2, {{"t", "node_lost"}, {"node", 1}}, life);
        c.run(second);
        EXPECT_EQ(epoch_of(c, 1), other ? 0 : 9);
        Client& user = c.client();
        user.ask(migrate({1}, "gn2"));
        ASSERT_TRUE(c.run(30 * second, [&] { return !user.results.empty(); }));
        if (!other) continue;
        EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
        EXPECT_EQ(epoch_of(c, 1), 1);
        EXPECT_EQ(c.node_of(1), 2u);
        expect_sound(c);
    }
}

// --- wrappers that die with no move on ---

TEST(Wrappers, DeadWrapperIsReplacedAndTheRankCanMove) {
    Cluster c(19, 3, {0, 1});
    for (int i = 0; i < 3; ++i) {
        c.kill_wrapper(1, 1);
        c.run(second);
        EXPECT_TRUE(c.rank_attached(1));
        EXPECT_FALSE(c.ended[1]);
    }
    EXPECT_EQ(c.adopted.size(), 3u);
    Client& user = c.client();
    user.ask(migrate({1}, "gn2"));
    ASSERT_TRUE(c.run(5 * second, [&] { return !user.results.empty(); }));
    EXPECT_EQ(user.results[0]["exit"], 0) << user.results[0];
    c.kill_wrapper(2, 1);
    c.run(second);
    EXPECT_EQ(c.adopted.size(), 4u);
    EXPECT_TRUE(c.rank_attached(1));
    expect_sound(c);
}

TEST(Wrappers, RankWhoseTreeIsKilledEnds) {
    Cluster c(20, 2, {0, 1});
    c.kill_tree(1, 1);
    c.run(second);
    EXPECT_TRUE(c.ended[1]);
    EXPECT_TRUE(c.adopted.empty());
    expect_sound(c);
}

}  // namespace
}  // namespace ghost::plugin::sim
