// SPDX-License-Identifier: BSD-3-Clause
// Several operations at the same time under the simulated runtime: two moves and a snapshot of
// different ranks, with deaths and losses, in thousands of interleavings; what is held for all of
// them together; and whether all this would find a fault.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "pmix-plugin/coordinator/operations/engine.hpp"
#include "pmix-plugin/coordinator/operations/snapshot.hpp"
#include "tests/rounds.hpp"
#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

// OMPI_MCA_ghost_verbose=4 shows what happens.
[[maybe_unused]] const bool logs = (log::setup("sim", log::level_from_environment()), true);

using Complaints = std::vector<std::string>;

std::map<std::string, std::string> at_once(int n) {
    return {{"ghost_migrate_at_once", std::to_string(n)}};
}

// --- what is held for all of them together ---

class FenceTest : public testing::Test {
  protected:
    Cluster c{1, 3, {0, 1}};
    Fences fences{c.daemon(0)};
};

TEST_F(FenceTest, HeldOnceForBatchReleasedByLastOperation) {
    EXPECT_TRUE(fences.hold(1));
    EXPECT_TRUE(fences.hold(2));
    EXPECT_EQ(c.holds, 1);
    fences.release(1);
    EXPECT_EQ(c.held, 1);
    fences.release(2);
    fences.release(2);
    fences.release(7);
    EXPECT_EQ(c.held, 0);
    EXPECT_EQ(c.releases, 1);
    expect_no_violation(c);
}

TEST_F(FenceTest, VotesCountInAnyOrder) {
    ASSERT_TRUE(fences.hold(1));
    ASSERT_TRUE(fences.hold(2));
    fences.decide(2, {0, 1});
    fences.decide(1, {0, 1});  // the later one
    EXPECT_TRUE(fences.vote(1, 0, 3));
    EXPECT_TRUE(fences.vote(1, 1, 4));
    EXPECT_FALSE(fences.vote(1, 1, 4));
    EXPECT_EQ(c.settles, 0);
    EXPECT_TRUE(fences.vote(2, 1, 10));
    EXPECT_TRUE(fences.vote(2, 0, 20));
    EXPECT_EQ(c.settles, 1);
    EXPECT_EQ(c.votes, 7);
    expect_no_violation(c);
}

TEST_F(FenceTest, ClosingBatchTakesNoOperation) {
    ASSERT_TRUE(fences.hold(1));
    fences.decide(1, {0});
    EXPECT_FALSE(fences.hold(2));
    EXPECT_TRUE(fences.vote(1, 0, 1));
    EXPECT_EQ(c.held, 0);
    EXPECT_TRUE(fences.hold(2));
    fences.release(2);
    expect_no_violation(c);
}

TEST_F(FenceTest, UndecidedOperationDoesNotSettle) {
    ASSERT_TRUE(fences.hold(1));
    ASSERT_TRUE(fences.hold(2));
    fences.decide(1, {0});
    EXPECT_TRUE(fences.vote(1, 0, 5));
    EXPECT_EQ(c.settles + c.releases, 0);
    fences.release(2);
    EXPECT_EQ(c.votes, 5);
    EXPECT_EQ(c.settles, 1);
    expect_no_violation(c);
}

TEST_F(FenceTest, DaemonOwingVoteHoldsFencesUntilGone) {
    ASSERT_TRUE(fences.hold(1));
    fences.decide(1, {0, 2});
    EXPECT_TRUE(fences.vote(1, 0, 1));
    fences.wait_no_more(1);
    fences.release(1);
    EXPECT_EQ(fences.owing(), std::optional<NodeId>(2));
    EXPECT_EQ(c.held, 1);
    fences.node_lost(2);
    EXPECT_EQ(fences.owing(), std::nullopt);
    EXPECT_EQ(c.settles, 1);
    EXPECT_EQ(c.votes, 1);
    expect_no_violation(c);
}

TEST(Epochs, ReservedEpochsAreUniqueAndGrow) {
    Epochs epochs;
    EXPECT_EQ(epochs.reserve(1), 1u);
    EXPECT_EQ(epochs.reserve(2), 2u);
    epochs.decide(2);
    EXPECT_EQ(epochs.now(), 2u);
    epochs.decide(1);
    EXPECT_EQ(epochs.now(), 2u);
    EXPECT_EQ(epochs.reserve(3), 3u);
    epochs.give_back(3);
    EXPECT_EQ(epochs.reserve(4), 3u);
}

TEST(Scopes, OverlapBySharedRankOrAllDaemons) {
    const Scope all{true, {}, true}, one{false, {1}, false}, other{false, {2, 3}, false},
        saved{false, {4}, true}, both{false, {1, 3}, false}, too{false, {5}, true};
    EXPECT_TRUE(all.meets(one));
    EXPECT_TRUE(one.meets(all));
    EXPECT_FALSE(one.meets(other));
    EXPECT_TRUE(both.meets(one));
    EXPECT_TRUE(other.meets(both));
    EXPECT_FALSE(saved.meets(one));
    EXPECT_TRUE(saved.meets(too));
}

// --- asked for by PMIx ---

TEST(ByPmix, RanksMoveAndNodeIsDrained) {
    Cluster c(21, 3, {0, 1, 1}, 4);
    std::vector<std::string> answers;
    c.job_control({.act = ControlAct::migrate, .ranks = {1}, .node = "gn2"}, answers);
    ASSERT_TRUE(c.run(5 * second, [&] { return answers.size() == 1; }));
    EXPECT_EQ(answers[0], "");
    EXPECT_EQ(c.node_of(1), 2u);
    c.job_control({.act = ControlAct::drain, .node = "gn1"}, answers);
    ASSERT_TRUE(c.run(5 * second, [&] { return answers.size() == 2; }));
    EXPECT_EQ(answers[1], "");
    EXPECT_NE(c.node_of(2), 1u);
    expect_sound(c);
}

TEST(ByPmix, RefusalsAreAnswered) {
    Cluster c(22, 2, {0, 1});
    std::vector<std::string> answers;
    c.job_control({.act = ControlAct::migrate, .node = "gn1"}, answers);
    c.job_control({.act = ControlAct::migrate, .ranks = {7}, .node = "gn1"}, answers);
    c.job_control({.act = ControlAct::migrate, .ranks = {1}, .node = "gn0", .mode = "dance"},
                  answers);
    c.job_control({.act = ControlAct::drain, .node = "gn9"}, answers);
    c.job_control({.act = ControlAct::drain}, answers);
    ASSERT_TRUE(c.run(5 * second, [&] { return answers.size() == 5; }));
    for (const char* why : {"names at least one rank", "there is no rank 7", "mode dance", "gn9"})
        EXPECT_EQ(std::ranges::count_if(answers,
                                        [why](const std::string& said) {
                                            return said.find(why) != std::string::npos;
                                        }),
                  1)
            << why << ": " << fmt::format("{}", fmt::join(answers, "; "));
    EXPECT_TRUE(std::ranges::none_of(answers, &std::string::empty));
    expect_sound(c);
}

// --- who runs beside whom ---

TEST(ConcurrentMoves, TwoRanksMoveAtTheSameTime) {
    Cluster c(2, 4, {0, 1, 1}, 0, {}, at_once(2));
    Client& first = c.client();
    Client& other = c.client();
    size_t seen = 0;
    first.on_phase = [&](const std::string& phase) {
        if (phase == "transferring") seen = c.ps()["moves"].size();
    };
    first.ask(migrate({1}, "gn2"));
    other.ask(migrate({2}, "gn3"));
    ASSERT_TRUE(
        c.run(9 * second, [&] { return !first.results.empty() && !other.results.empty(); }));
    EXPECT_EQ(first.results[0]["exit"], 0) << first.results[0];
    EXPECT_EQ(other.results[0]["exit"], 0) << other.results[0];
    EXPECT_NE(first.results[0]["result"][0]["epoch"], other.results[0]["result"][0]["epoch"]);
    EXPECT_EQ(c.node_of(1), 2u);
    EXPECT_EQ(c.node_of(2), 3u);
    EXPECT_EQ(c.ps()["epoch"], 2);
    EXPECT_EQ(seen, 2u);
    expect_sound(c);
}

TEST(ConcurrentMoves, RanksSwapNodes) {
    Cluster c(3, 3, {0, 1, 2}, 0, {}, at_once(4));
    Client& first = c.client();
    Client& other = c.client();
    first.ask(migrate({1}, "gn2"));
    other.ask(migrate({2}, "gn1"));
    ASSERT_TRUE(
        c.run(9 * second, [&] { return !first.results.empty() && !other.results.empty(); }));
    EXPECT_EQ(first.results[0]["exit"], 0) << first.results[0];
    EXPECT_EQ(other.results[0]["exit"], 0) << other.results[0];
    EXPECT_EQ(c.node_of(1), 2u);
    EXPECT_EQ(c.node_of(2), 1u);
    expect_sound(c);
}

TEST(ConcurrentMoves, RanksInTransitOccupySlots) {
    Cluster c(4, 3, {0, 1, 1}, 2, {}, at_once(4));
    Client& fills = c.client();
    fills.ask(migrate({0}, "gn2"));
    ASSERT_TRUE(c.run(9 * second, [&] { return !fills.results.empty(); }));
    Client& first = c.client();
    Client& other = c.client();
    first.ask(migrate({1}, "gn2"));
    other.ask(migrate({2}, "gn2"));
    ASSERT_TRUE(
        c.run(9 * second, [&] { return !first.results.empty() && !other.results.empty(); }));
    EXPECT_EQ(first.results[0]["exit"], 0) << first.results[0];
    EXPECT_EQ(other.results[0]["exit"], 1) << other.results[0];
    EXPECT_NE(std::string(other.results[0]["error"]).find("is full"), std::string::npos);
    expect_sound(c);
}

// The second move of rank 1 waits for the first one, the snapshot of the job for both; what was
// asked for after that waits for the snapshot.
TEST(ConcurrentMoves, WaitingRequestGoesBeforeLaterOnes) {
    Cluster c(5, 3, {0, 1, 1}, 0, {}, at_once(8));
    Client& first = c.client();
    Client& again = c.client();
    Client& saves = c.client();
    Client& later = c.client();
    first.ask(migrate({1}, "gn2"));
    again.ask(migrate({1}, "gn0"));
    saves.ask(checkpoint());
    later.ask(migrate({2}, "gn2"));
    std::vector<std::string> order;
    const auto note = [&order](const char* who) {
        return [&order, who](const std::string&) {
            if (order.empty() || order.back() != who) order.emplace_back(who);
        };
    };
    first.on_phase = note("first");
    again.on_phase = note("again");
    saves.on_phase = note("saves");
    later.on_phase = note("later");
    ASSERT_TRUE(c.run(20 * second, [&] {
        return !again.results.empty() && !saves.results.empty() && !later.results.empty();
    }));
    EXPECT_EQ(order, (std::vector<std::string>{"first", "again", "saves", "later"}));
    EXPECT_EQ(c.node_of(1), 0u);
    EXPECT_EQ(c.node_of(2), 2u);
    expect_sound(c);
}

// Loses the first message of the type about the rank, and lets it arrive so much later.
void put_off(Cluster& c, DaemonMessage type, RankId rank, int64_t us,
             std::function<bool(NodeId, const Json&)> lost = nullptr) {
    c.lose = [&c, type, rank, us, lost, done = false](NodeId from, NodeId to,
                                                      const Json& m) mutable {
        if (lost && lost(from, m)) return true;
        if (type_of(m) != type || m["rank"] != rank || std::exchange(done, true)) return false;
        c.daemon(0).after(us, [&c, from, to, m] { c.inject(from, to, m); });
        return true;
    };
}

// A batch ends with its slowest move; who comes after its first decision waits for that, and no
// limit of his own runs meanwhile: neither of one that has not begun nor of one that is prepared.
TEST(ConcurrentMoves, RequestAtClosingBatchWaitsForItsEnd) {
    CoordinatorSettings settings;
    settings.transfer_us = 60 * second;
    Cluster c(6, 4, {0, 1, 1, 2, 2}, 0, settings, at_once(3));
    put_off(c, DaemonMessage::connected, 4, second, [](NodeId, const Json& m) {
        return type_of(m) == DaemonMessage::exported && m["rank"] == 1;
    });
    std::vector<Client*> users;
    const auto ask = [&](RankId rank, const char* to) {
        users.push_back(&c.client());
        users.back()->ask(migrate({rank}, to));
    };
    ask(1, "gn3");
    ask(2, "gn3");
    ask(4, "gn1");
    ask(3, "gn1");
    const auto all_told = [&] {
        return std::ranges::none_of(users, [](Client* user) { return user->results.empty(); });
    };
    ASSERT_TRUE(c.run(9 * second, [&] { return !users[1]->results.empty(); }));
    ASSERT_TRUE(c.run(90 * second, all_told));
    for (size_t i = 0; i < users.size(); ++i)
        EXPECT_EQ(users[i]->results[0]["exit"], i == 0 ? 1 : 0) << users[i]->results[0];
    EXPECT_EQ(c.node_of(3), 1u);
    EXPECT_EQ(c.node_of(4), 1u);
    expect_sound(c);
}

// As one that asks later is told at once.
TEST(ConcurrentMoves, WaitForOwedFencesIsReported) {
    Cluster c(7, 4, {0, 1, 1, 2}, 0, {}, at_once(2));
    put_off(c, DaemonMessage::connected, 2, second, [](NodeId from, const Json& m) {
        return from == 2 && type_of(m) == DaemonMessage::switched;
    });
    Client& first = c.client();
    Client& waits = c.client();
    first.ask(migrate({1}, "gn3"));
    waits.ask(migrate({2}, "gn3"));
    ASSERT_TRUE(
        c.run(60 * second, [&] { return !first.results.empty() && !waits.results.empty(); }));
    EXPECT_EQ(first.results[0]["exit"], 0) << first.results[0];
    EXPECT_EQ(waits.results[0]["exit"], 1) << waits.results[0];
    EXPECT_NE(std::string(waits.results[0]["error"]).find("node gn2 has not answered"),
              std::string::npos)
        << waits.results[0];
    EXPECT_EQ(c.running_copies(2), 1);
    EXPECT_EQ(c.node_of(2), 1u);
    for (const std::string& v : c.violations) ADD_FAILURE() << v;
}

// The daemon owes its vote to two moves; it is given up for the second one, when its rank has
// ended. What it owes to the first one is owed no more either.
TEST(ConcurrentMoves, GivenUpDaemonOwesNoVote) {
    Cluster c(8, 5, {0, 1, 1, 2}, 0, {}, at_once(2));
    put_off(c, DaemonMessage::exported, 2, 3 * second, [](NodeId from, const Json& m) {
        return from == 2 && type_of(m) == DaemonMessage::switched;
    });
    Client& first = c.client();
    Client& other = c.client();
    first.on_phase = [&](const std::string& phase) {
        if (phase == "going") c.end_rank(3);
    };
    first.ask(migrate({1}, "gn3"));
    other.ask(migrate({2}, "gn4"));
    ASSERT_TRUE(
        c.run(60 * second, [&] { return !first.results.empty() && !other.results.empty(); }));
    c.run(30 * second);
    EXPECT_EQ(first.results[0]["exit"], 0) << first.results[0];
    EXPECT_EQ(other.results[0]["exit"], 0) << other.results[0];
    EXPECT_TRUE(c.given_up.contains(2));
    expect_sound(c);
    Client& again = c.client();
    again.ask(migrate({1}, "gn0"));
    ASSERT_TRUE(c.run(30 * second, [&] { return !again.results.empty(); }));
    EXPECT_EQ(again.results[0]["exit"], 0) << again.results[0];
}

// Whatever they are at: everybody is told once, what waits is refused, and mpirun has its usual
// priority.
TEST(ConcurrentMoves, MpirunEndsInEveryStateOfTwoMoves) {
    for (const std::string state :
         {"preparing", "connecting", "holding", "gating", "transferring", "switching", "going"}) {
        SCOPED_TRACE(state);
        Cluster c(9, 5, {0, 1, 2, 0}, 0, {}, at_once(2));
        Client& first = c.client();
        Client& other = c.client();
        Client& waits = c.client();
        Client& listed = c.client();
        bool stopped = false;
        first.on_phase = [&](const std::string& phase) { stopped |= phase == state; };
        first.ask(migrate({1}, "gn3"));
        other.ask(migrate({2}, "gn4"));
        waits.ask(migrate({1, 2}, "gn0"));
        listed.ask(checkpoint());
        ASSERT_TRUE(c.run(9 * second, [&] { return stopped; }));
        c.end_mpirun();
        c.run(second);
        for (const Client* user : {&first, &other, &waits, &listed}) {
            ASSERT_EQ(user->results.size(), 1u);
            EXPECT_EQ(user->results[0]["exit"], 1);
            EXPECT_NE(std::string(user->results[0]["error"]).find("the job has ended"),
                      std::string::npos)
                << user->results[0];
        }
        EXPECT_EQ(c.raised(0), 0);
    }
}

// It has begun: its client's leaving changes nothing; what else he asked for is forgotten.
TEST(ConcurrentMoves, ClientGoneHalfwayListIsFinished) {
    Cluster c(10, 4, {0, 1, 1, 2}, 0, {}, at_once(2));
    Client& leaves = c.client();
    leaves.ask(migrate({1, 2}, "gn3"));
    leaves.ask(migrate({1}, "gn0"));
    Client& other = c.client();
    other.ask(migrate({3}, "gn1"));
    ASSERT_TRUE(c.run(9 * second, [&] { return c.node_of(1) == 3; }));
    leaves.vanish();
    c.run(20 * second);
    EXPECT_EQ(c.node_of(1), 3u);
    EXPECT_EQ(c.node_of(2), 3u);
    EXPECT_EQ(c.node_of(3), 1u);
    EXPECT_EQ(c.ps()["waiting"], 0);
    expect_sound(c);
}

// --- interleavings ---

// Ranks 0 to 2 are saved, 3 and 4 move: from gn1 to gn3 and from gn2 to gn4.
constexpr std::array<RankId, 2> movers = {3, 4};
constexpr std::array<const char*, 2> targets = {"gn3", "gn4"};

enum class Fault {
    none,
    source_wrapper,
    target_wrapper,
    source_tree,
    source_node,
    target_node,
    empty_node,
    cut_target,
    cut_empty,
    saved_wrapper,
    saved_tree,
    client,
    lose_between_daemons,
    lose_local,
};
constexpr int fault_count = 14;

struct Scene {
    Scene(uint64_t seed, std::map<std::string, std::string> parameters)
        : c(seed, 6, {0, 1, 2, 1, 2}, 0, {}, std::move(parameters)), random(seed) {}

    Cluster c;
    std::mt19937_64 random;
    std::array<Client*, 2> users{};
    std::vector<SnapshotRun> saved;
    bool together = false;
    std::array<bool, 3> begun{}, over{};

    bool all_over() const {
        return (users[0]->gone() || !users[0]->results.empty()) &&
               (users[1]->gone() || !users[1]->results.empty()) && !saved.empty();
    }
};

void inject(Scene& s, Fault fault) {
    Cluster& c = s.c;
    switch (fault) {
        case Fault::none:
            return;
        case Fault::source_wrapper:
            return c.kill_wrapper(1, 3);
        case Fault::target_wrapper:
            return c.kill_wrapper(3, 3);
        case Fault::source_tree:
            return c.kill_tree(1, 3);
        case Fault::source_node:
            return c.kill_node(1);
        case Fault::target_node:
            return c.kill_node(3);
        case Fault::empty_node:
            return c.kill_node(5);
        case Fault::cut_target:
            return c.cut(3);
        case Fault::cut_empty:
            return c.cut(5);
        case Fault::saved_wrapper:
            return c.kill_wrapper(1, 1);
        case Fault::saved_tree:
            return c.kill_tree(1, 1);
        case Fault::client:
            return s.users[0]->vanish();
        case Fault::lose_between_daemons:
            return lose_one(c, [](NodeId, NodeId, DaemonMessage type) {
                using enum DaemonMessage;
                return type != ping && type != pong && type != location && type != located &&
                       type != node_lost;
            });
        case Fault::lose_local:
            return c.lose_one_local();
    }
}

void begin(Scene& s, Fault fault) {
    Cluster& c = s.c;
    c.chance.latency_us = 1 + static_cast<int64_t>(s.random() % 2000);
    c.chance.busy_percent = static_cast<int>(s.random() % 40);
    c.chance.fence_percent = static_cast<int>(s.random() % 40);
    c.chance.saved = 3;
    const auto soon = [&] { return static_cast<int64_t>(s.random() % 8'000); };
    const auto note = [&s](size_t which) {
        return [&s, which](const std::string&) {
            s.begun[which] = true;
            const bool none_over =
                s.users[0]->results.empty() && s.users[1]->results.empty() && s.saved.empty();
            s.together |=
                none_over && s.begun[0] && s.begun[1] && s.c.ps().contains("snapshotting");
        };
    };
    for (size_t i = 0; i < movers.size(); ++i) {
        s.users[i] = &c.client();
        s.users[i]->on_phase = note(i);
        c.daemon(0).after(soon(), [&s, i] { s.users[i]->ask(migrate({movers[i]}, targets[i])); });
    }
    c.daemon(0).after(soon(), [&s] {
        s.c.snapshot({.asked_by = "test", .ranks = {0, 1, 2}},
                     [&s](const SnapshotRun& run) { s.saved.push_back(run); });
    });
    c.daemon(0).after(static_cast<int64_t>(s.random() % 30'000), [&s, fault] { inject(s, fault); });
}

// What a fault may have done to an operation; everything else must have worked. Who waits for a
// silent daemon holds the fences, and the others wait for those.
bool may_fail(Fault fault, int operation) {
    const bool first_move = operation == 0, snapshot = operation == 2;
    switch (fault) {
        case Fault::none:
        case Fault::client:
            return false;
        case Fault::source_wrapper:
        case Fault::target_wrapper:
        case Fault::source_tree:
            return first_move;
        case Fault::saved_wrapper:
        case Fault::saved_tree:
        case Fault::empty_node:
            return snapshot;
        default:
            return true;
    }
}

bool ends_the_job(Fault fault) {
    return fault == Fault::source_node || fault == Fault::target_node ||
           fault == Fault::cut_target || fault == Fault::target_wrapper ||
           fault == Fault::source_tree || fault == Fault::lose_between_daemons ||
           fault == Fault::lose_local;
}

void judge_move(Scene& s, size_t i, Fault fault, bool over, Complaints& out) {
    const RankId rank = movers[i];
    Client& user = *s.users[i];
    const bool ended = s.c.ended[rank];
    const auto complain = [&](const std::string& what) {
        out.push_back(fmt::format("rank {}: {}", rank, what));
    };
    if (user.gone()) {
        if (!over && fault == Fault::client && s.c.node_of(rank) != (i == 0 ? 3u : 4u) &&
            s.begun[i])
            complain("was not moved, for its client left");
        return;
    }
    if (user.results.size() != 1) return complain("the client was not told once");
    const Json& r = user.results[0];
    const bool moved = !r["result"].empty() && r["result"][0]["moved"] == true;
    if (moved != (r["exit"] == 0)) complain("exit status and result disagree: " + r.dump());
    if (moved && !over && !ended && s.c.node_of(rank) != (i == 0 ? 3u : 4u))
        complain("is not where it was moved to");
    if (r["exit"] == 1 && !over && !ended && s.c.node_of(rank) != (i == 0 ? 1u : 2u))
        complain("is not where it was left");
    if (!moved && !over && !may_fail(fault, static_cast<int>(i))) complain("failed: " + r.dump());
}

// What must hold when everything has come to rest; empty: it does.
Complaints judge(Scene& s, Fault fault) {
    Cluster& c = s.c;
    Complaints out = c.violations;
    const bool over = c.job_aborted || c.job_broken;
    if (over && !ends_the_job(fault)) out.push_back("the job was ended: " + c.abort_why);
    // A job that is being ended waits for nothing. A daemon with ranks whose vote is lost is waited
    // for: only a broken connection is the end of one.
    const bool owed = fault == Fault::lose_between_daemons || fault == Fault::cut_target;
    if (!over && !owed && (c.held != 0 || c.holds != c.releases + c.settles))
        out.emplace_back("fences are still held");
    const Json ps = c.ps();
    if (ps.contains("moves") || ps.contains("snapshotting"))
        out.push_back("the coordinator is not idle: " + ps.dump());
    for (NodeId node = 0; node < c.size(); ++node) {
        const bool judged = !over && !c.dead.contains(node) && !c.given_up.contains(node);
        // A rank whose word was lost is still waited for.
        const bool lost = fault == Fault::cut_target || fault == Fault::lose_local;
        if (judged && !lost && c.raised(node) != 0)
            out.push_back(fmt::format("node {} still has the raised priority", node));
    }
    for (const auto& [rank, ended] : c.ended) {
        const int copies = c.running_copies(rank);
        if (ended && copies != 0) out.push_back(fmt::format("rank {} ended and runs", rank));
        if (over || ended) continue;
        if (copies != 1) out.push_back(fmt::format("{} copies of rank {} run", copies, rank));
        // Between a rank and its node nothing is lost but by the end of one of them.
        if (copies == 1 && fault != Fault::lose_local && !c.rank_attached(rank))
            out.push_back(fmt::format("rank {} is not attached", rank));
    }
    for (size_t i = 0; i < movers.size(); ++i) judge_move(s, i, fault, over, out);
    if (s.saved.size() != 1) {
        out.emplace_back("whoever asked for the snapshot was not told once");
    } else if (s.saved[0].state != SnapshotState::done && !over && !may_fail(fault, 2)) {
        out.push_back("the snapshot failed: " + s.saved[0].why);
    }
    return out;
}

// The rule of one operation at a time: an order of an older operation than a node has heard of is
// late, whatever its rank.
void plant_scalar_numbers(Cluster& c) {
    c.lose = [newest = std::map<NodeId, uint64_t>()](NodeId from, NodeId to,
                                                     const Json& m) mutable {
        using enum DaemonMessage;
        const DaemonMessage type = type_of(m);
        const bool order = type == prepare || type == connect || type == gate || type == go ||
                           type == abort || type == switch_rank;
        if (from != 0 || !order) return false;
        const uint64_t seq = m["seq"];
        if (seq < newest[to]) return true;
        newest[to] = seq;
        return false;
    };
}

// One interleaving: what is wrong after it.
Complaints interleave(uint64_t seed, Fault fault, bool planted, bool* together = nullptr) {
    Scene s(seed, at_once(3));
    begin(s, fault);
    if (planted) plant_scalar_numbers(s.c);
    s.c.run(120 * second, [&] { return s.all_over(); });
    s.c.run(90 * second);
    if (together != nullptr) *together = s.together;
    return judge(s, fault);
}

TEST(Interleavings, TwoMovesAndSnapshotOfDisjointRanks) {
    const auto rounds =
        static_cast<uint64_t>(test::rounds("GHOST_TEST_INTERLEAVINGS", 600, 10'000));
    const uint64_t seeds = seeds_of(rounds);
    uint64_t together = 0, bad = 0;
    const auto first = static_cast<uint64_t>(test::rounds("GHOST_TEST_FIRST_SEED", 1, 1));
    for (uint64_t seed = first; seed < first + seeds; ++seed) {
        const auto fault = static_cast<Fault>(seed % fault_count);
        bool all = false;
        const Complaints wrong = interleave(seed, fault, false, &all);
        together += all;
        for (const std::string& one : wrong)
            ADD_FAILURE() << "seed " << seed << ", fault " << seed % fault_count << ": " << one;
        bad += !wrong.empty();
        if (bad == 5) return;
    }
    std::printf("%lu interleavings, in %lu of them all three were under way at once\n", seeds,
                together);
    EXPECT_GT(together, seeds / 4);
}

// Lists of ranks from several users, to the same nodes and past each other, up to eight at once.
TEST(Interleavings, RankListsThatCrossEachOther) {
    const auto seeds = seeds_of(static_cast<uint64_t>(test::rounds("GHOST_TEST_LISTS", 60, 1000)));
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
        SCOPED_TRACE(seed);
        std::mt19937_64 random(seed);
        const auto any = [&](uint64_t n) { return static_cast<NodeId>(random() % n); };
        Cluster c(seed, 6, {0, 1, 2, 3, 1, 2, 3, 0}, 0, {}, at_once(2 + static_cast<int>(any(7))));
        c.chance.latency_us = 1 + any(2000);
        c.chance.busy_percent = static_cast<int>(any(40));
        c.chance.fence_percent = static_cast<int>(any(40));
        std::vector<Client*> users;
        for (int i = 0; i < 6; ++i) {
            Client* user = users.emplace_back(&c.client());
            const Json order = migrate({any(8), any(8)}, fmt::format("gn{}", any(5)));
            c.daemon(0).after(any(20'000), [user, order] { user->ask(order); });
        }
        c.daemon(0).after(any(60'000), [&] {
            if (seed % 3 == 1) c.kill_node(5);
            if (seed % 3 == 2) users[0]->vanish();
        });
        const auto told = [](Client* user) { return user->gone() || !user->results.empty(); };
        ASSERT_TRUE(c.run(200 * second, [&] { return std::ranges::all_of(users, told); }));
        c.run(60 * second);
        for (const Client* user : users) {
            if (user->gone()) continue;
            ASSERT_EQ(user->results.size(), 1u);
            EXPECT_EQ(user->results[0]["exit"], 0) << user->results[0];
        }
        for (RankId rank = 0; rank < 8; ++rank) {
            EXPECT_EQ(c.running_copies(rank), 1) << rank;
            EXPECT_TRUE(c.rank_attached(rank)) << rank;
        }
        EXPECT_EQ(c.ps()["waiting"], 0);
        expect_sound(c);
        if (testing::Test::HasFailure()) return;
    }
}

TEST(Interleavings, PlantedFaultIsFound) {
    uint64_t found = 0;
    for (uint64_t seed = 1; seed <= 10; ++seed)
        found += !interleave(seed, Fault::none, true).empty();
    std::printf("the planted fault was found in %lu of 10 interleavings\n", found);
    EXPECT_GT(found, 0u);
}

}  // namespace
}  // namespace ghost::plugin::sim
