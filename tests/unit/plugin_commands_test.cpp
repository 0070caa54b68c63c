// SPDX-License-Identifier: BSD-3-Clause
// Commands about several ranks under the simulated runtime: moved at the same time, all of a node,
// to nodes that are chosen; undone in every state; nodes that are drained and leave, that join; all
// of it with deaths, in thousands of interleavings.
#include <gtest/gtest.h>

#include <algorithm>
#include <fmt/format.h>
#include <set>
#include <utility>

#include "tests/rounds.hpp"
#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {
namespace {

std::map<std::string, std::string> limit(const std::string& at_once) {
    return {{"ghost_migrate_at_once", at_once}};
}

Json all_from(const std::string& node, const std::string& to = "") {
    return {{"t", "migrate"}, {"ranks", Json::array()}, {"to", to}, {"all_from", node}};
}

Json drain_of(const std::string& node, std::vector<std::string> to = {}) {
    return {{"t", "drain"}, {"node", node}, {"to", std::move(to)}};
}

Json grow_by(const std::string& node, int slots = 4) {
    return {{"t", "grow"}, {"node", node}, {"slots", slots}};
}

Json cancel(std::optional<uint64_t> id = std::nullopt) {
    Json out = {{"t", "cancel"}};
    if (id) out["id"] = *id;
    return out;
}

// The most moves that were under way at the same time, as the daemons were told.
size_t most_at_once(Cluster& c) {
    std::set<uint64_t> moves;
    size_t most = 0;
    for (const Json& m : c.sent) {
        if (type_of(m) == DaemonMessage::prepare) moves.insert(m["seq"].get<uint64_t>());
        if (type_of(m) == DaemonMessage::done) moves.erase(m["seq"].get<uint64_t>());
        most = std::max(most, moves.size());
    }
    return most;
}

Json done(Cluster& c, Client& user, const Json& order, int64_t us = 60 * second) {
    user.results.clear();
    user.ask(order);
    EXPECT_TRUE(c.run(us, [&] { return !user.results.empty(); })) << order;
    return user.results.empty() ? Json() : user.results[0];
}

int ranks_on(Cluster& c, NodeId node) {
    int count = 0;
    for (const auto& [rank, over] : c.ended) count += !over && c.node_of(rank) == node;
    return count;
}

// --- several ranks of one command ---

TEST(Commands, RanksOfOneCommandMoveAtTheSameTime) {
    Cluster c(1, 3, {0, 1, 1, 1, 1}, 0, {}, limit("4"));
    Client& user = c.client();
    const Json answer = done(c, user, migrate({1, 2, 3, 4}, "gn2"));
    EXPECT_EQ(answer["exit"], 0) << answer;
    EXPECT_EQ(answer["result"].size(), 4u);
    EXPECT_EQ(most_at_once(c), 4u);
    EXPECT_EQ(ranks_on(c, 2), 4);
    EXPECT_EQ(c.ps()["epoch"], 4);
    expect_all_run(c);
    expect_sound(c);
}

// Each end counts, and which of both it is does not matter.
TEST(Commands, EachNodeTakesPartInAsManyMovesAsItHasCores) {
    for (const int cores : {0, 1, 2, 3, 64}) {
        SCOPED_TRACE(cores);
        Cluster c(2, 5, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, {}, limit("auto"));
        c.cores = cores;
        Client& user = c.client();
        EXPECT_EQ(done(c, user, all_from("gn1", "gn2"))["exit"], 0);
        EXPECT_EQ(most_at_once(c), static_cast<size_t>(std::clamp(cores, 1, 8)));
        EXPECT_EQ(ranks_on(c, 2), 10);
        expect_sound(c);
    }
}

TEST(Commands, MovesBetweenOtherNodesDoNotWait) {
    Cluster c(3, 5, {1, 3}, 0, {}, limit("auto"));
    Client& one = c.client();
    Client& other = c.client();
    one.ask(migrate({0}, "gn2"));
    other.ask(migrate({1}, "gn4"));
    ASSERT_TRUE(c.run(20 * second, [&] { return !one.results.empty() && !other.results.empty(); }));
    EXPECT_EQ(most_at_once(c), 2u);
    expect_sound(c);
}

// One that cannot move keeps those that have not begun, and is told with how many those are.
TEST(Commands, RankThatCannotMoveKeepsThoseThatWait) {
    Cluster c(4, 3, {0, 1, 1, 1}, 0, {}, limit("1"));
    c.end_rank(1);
    c.run(second);
    Client& user = c.client();
    const Json answer = done(c, user, migrate({1, 2, 3}, "gn2"));
    EXPECT_EQ(answer["exit"], 1);
    EXPECT_NE(std::string(answer["error"]).find("rank 1 has ended (2 more ranks were not tried)"),
              std::string::npos)
        << answer;
    EXPECT_EQ(ranks_on(c, 1), 2);
    EXPECT_EQ(c.ps()["waiting"], 0);
    expect_sound(c);
}

TEST(Commands, ChosenTargetIsTheOneWithMostFreeSlots) {
    Cluster c(5, 4, {0, 0, 1, 1, 1, 3}, 3, {}, limit("4"));
    Client& user = c.client();
    const Json answer = done(c, user, all_from("gn1"));
    EXPECT_EQ(answer["exit"], 0) << answer;
    EXPECT_EQ(ranks_on(c, 1), 0);
    EXPECT_EQ(ranks_on(c, 0), 2);
    EXPECT_EQ(ranks_on(c, 2), 2);
    EXPECT_EQ(ranks_on(c, 3), 2);
    expect_sound(c);
}

TEST(Commands, NoFreeSlotAnywhereIsSaid) {
    Cluster c(6, 2, {0, 0, 1}, 2);
    Client& user = c.client();
    const Json answer = done(c, user, migrate({2}, ""));
    EXPECT_EQ(answer["exit"], 1);
    EXPECT_NE(std::string(answer["error"]).find("no other node of the job has a slot free"),
              std::string::npos)
        << answer;
    EXPECT_EQ(c.node_of(2), 1u);
    expect_sound(c);
}

// --- undone ---

TEST(Commands, CancelUndoesWhatIsUnderWayAndWhatWaits) {
    for (const std::string state :
         {"preparing", "connecting", "holding", "gating", "transferring", "switching", "going"}) {
        SCOPED_TRACE(state);
        Cluster c(7, 3, {0, 1, 1, 1}, 0, {}, limit("1"));
        Client& user = c.client();
        Client& other = c.client();
        bool asked = false;
        user.on_phase = [&](const std::string& phase) {
            if (phase == state && !std::exchange(asked, true)) other.ask(cancel());
        };
        const Json answer = done(c, user, migrate({1, 2, 3}, "gn2"));
        ASSERT_TRUE(asked);
        ASSERT_TRUE(c.run(20 * second, [&] { return !other.results.empty(); }));
        const bool decided = state == "switching" || state == "going";
        EXPECT_EQ(answer["exit"], 1) << answer;
        EXPECT_NE(std::string(answer["error"]).find("it was cancelled"), std::string::npos)
            << answer;
        EXPECT_EQ(other.results[0]["exit"], decided ? 1 : 0) << other.results[0];
        ASSERT_EQ(other.results[0]["result"].size(), 3u) << other.results[0];
        EXPECT_EQ(other.results[0]["result"][0]["undone"], !decided);
        EXPECT_EQ(other.results[0]["result"][2]["undone"], true);
        EXPECT_EQ(ranks_on(c, 2), decided ? 1 : 0);
        EXPECT_EQ(c.ps()["waiting"], 0);
        expect_all_run(c);
        expect_sound(c);
    }
}

TEST(Commands, CancelOfOneNumberLeavesOthers) {
    Cluster c(8, 4, {0, 1, 2}, 0, {}, limit("1"));
    Client& one = c.client();
    Client& two = c.client();
    Client& other = c.client();
    one.ask(migrate({1}, "gn3"));
    two.ask(migrate({2}, "gn3"));
    uint64_t id = 0;
    ASSERT_TRUE(c.run(20 * second, [&] {
        const Json ps = c.ps();
        if (ps.contains("queue")) id = ps["queue"][0]["id"];
        return id != 0;
    }));
    EXPECT_EQ(done(c, other, cancel(id))["exit"], 0);
    EXPECT_EQ(done(c, other, cancel(77))["exit"], 1);
    ASSERT_TRUE(c.run(20 * second, [&] { return !one.results.empty() && !two.results.empty(); }));
    EXPECT_EQ(one.results[0]["exit"], 0) << one.results[0];
    EXPECT_EQ(two.results[0]["exit"], 1) << two.results[0];
    EXPECT_EQ(c.node_of(1), 3u);
    EXPECT_EQ(c.node_of(2), 2u);
    expect_sound(c);
}

TEST(Commands, CancelOfASnapshotInEveryState) {
    for (const std::string state : {"preparing", "gating", "freezing", "writing", "completing"}) {
        SCOPED_TRACE(state);
        Cluster c(9, 3, {0, 1, 2});
        Client& user = c.client();
        Client& other = c.client();
        bool asked = false;
        user.on_phase = [&](const std::string& phase) {
            if (phase == state && !std::exchange(asked, true)) other.ask(cancel());
        };
        const Json answer = done(c, user, checkpoint());
        ASSERT_TRUE(asked);
        ASSERT_TRUE(c.run(20 * second, [&] { return !other.results.empty(); }));
        const bool undone = other.results[0]["exit"] == 0;
        EXPECT_EQ(answer["exit"], undone && answer["exit"] != 0 ? 1 : 0) << answer;
        EXPECT_EQ(undone, state != "completing") << other.results[0] << answer;
        expect_all_run(c);
        expect_sound(c);
        expect_whole_folder(c);
    }
}

// --- drained ---

TEST(Drain, RanksLeaveAndThenTheNode) {
    Cluster c(11, 4, {0, 1, 1, 1, 2}, 0, {}, limit("3"));
    Client& user = c.client();
    const Json answer = done(c, user, drain_of("gn1"));
    EXPECT_EQ(answer["exit"], 0) << answer;
    EXPECT_EQ(answer["result"]["drained"], true);
    EXPECT_EQ(answer["result"]["left"], true);
    EXPECT_EQ(answer["result"]["moves"].size(), 3u);
    EXPECT_NE(std::string(answer["result"]["note"]).find("can be switched off"), std::string::npos);
    EXPECT_EQ(most_at_once(c), 3u);
    EXPECT_TRUE(c.dead.contains(1));
    EXPECT_TRUE(c.given_up.contains(1));
    EXPECT_EQ(ranks_on(c, 1), 0);
    EXPECT_NE(done(c, user, migrate({4}, "gn1"))["exit"], 0);
    EXPECT_EQ(done(c, user, migrate({4}, "gn3"))["exit"], 0);
    EXPECT_EQ(done(c, user, checkpoint())["exit"], 0);
    EXPECT_EQ(done(c, user, drain_of("gn1"))["exit"], 0);
    EXPECT_FALSE(c.job_broken);
    expect_all_run(c);
    expect_sound(c);
}

TEST(Drain, MpirunStays) {
    Cluster c(12, 3, {0, 0, 1});
    Client& user = c.client();
    const Json answer = done(c, user, drain_of("gn0", {"gn2"}));
    EXPECT_EQ(answer["exit"], 0) << answer;
    EXPECT_EQ(answer["result"]["left"], false);
    EXPECT_NE(std::string(answer["result"]["note"]).find("mpirun runs there and stays"),
              std::string::npos)
        << answer;
    EXPECT_EQ(ranks_on(c, 2), 2);
    const Json back = done(c, user, migrate({2}, "gn0"));
    EXPECT_NE(std::string(back["error"]).find("node gn0 is drained"), std::string::npos) << back;
    expect_sound(c);
}

// The others leave; it is said who stays, and why; the node is a target again.
TEST(Drain, RankThatCannotMoveIsNamed) {
    Cluster c(13, 3, {0, 1, 1, 1}, 3, {}, limit("2"));
    Client& user = c.client();
    const Json answer = done(c, user, drain_of("gn1", {"gn0"}));
    EXPECT_EQ(answer["exit"], 1) << answer;
    EXPECT_EQ(answer["result"]["drained"], false);
    ASSERT_EQ(answer["result"]["stay"].size(), 1u) << answer;
    EXPECT_NE(
        std::string(answer["result"]["stay"][0]["why"]).find("no node of gn0 has a slot free"),
        std::string::npos)
        << answer;
    EXPECT_NE(std::string(answer["error"]).find("node gn1 is not drained: rank 3 stays there"),
              std::string::npos)
        << answer;
    EXPECT_EQ(ranks_on(c, 0), 3);
    EXPECT_FALSE(c.dead.contains(1));
    EXPECT_EQ(done(c, user, migrate({2}, "gn1"))["exit"], 0);
    expect_sound(c);
}

TEST(Drain, Refusals) {
    Cluster c(14, 3, {0, 1});
    Client& user = c.client();
    const auto refused = [&](const Json& order, const char* why) {
        const Json answer = done(c, user, order);
        EXPECT_EQ(answer["exit"], 1);
        EXPECT_NE(std::string(answer["error"]).find(why), std::string::npos) << answer;
    };
    refused(drain_of("nowhere"), "node nowhere is not part of the job");
    refused(drain_of("gn1", {"nowhere"}), "node nowhere is not part of the job");
    c.chance.guests = 2;
    c.chance.guests_at = 1;
    refused(drain_of("gn1"), "2 processes that the job has spawned");
    c.chance.guests_at = 2;
    EXPECT_EQ(done(c, user, drain_of("gn1"))["exit"], 0);
    expect_sound(c);
}

TEST(Drain, RanksThatShareMemoryLeaveTogether) {
    Cluster c(15, 3, {0, 1, 1, 1}, 0, {}, limit("4"));
    c.chance.sharers = {1, 2};
    Client& user = c.client();
    const Json answer = done(c, user, drain_of("gn1"));
    EXPECT_EQ(answer["exit"], 0) << answer;
    EXPECT_EQ(answer["result"]["left"], true);
    EXPECT_EQ(c.node_of(1), c.node_of(2));
    expect_all_run(c);
    expect_sound(c);
}

TEST(Drain, CancelledDrainMakesTheNodeATargetAgain) {
    Cluster c(16, 3, {0, 1, 1, 1}, 0, {}, limit("1"));
    Client& user = c.client();
    Client& other = c.client();
    bool asked = false;
    user.on_phase = [&](const std::string& phase) {
        if (phase == "transferring" && !std::exchange(asked, true)) other.ask(cancel());
    };
    const Json answer = done(c, user, drain_of("gn1"));
    EXPECT_EQ(answer["exit"], 1) << answer;
    EXPECT_NE(std::string(answer["error"]).find("it was cancelled"), std::string::npos) << answer;
    EXPECT_EQ(ranks_on(c, 1), 3);
    EXPECT_EQ(done(c, user, migrate({0}, "gn1"))["exit"], 0);
    expect_sound(c);
}

// Its connection breaks before it can say that it leaves.
TEST(Drain, DaemonThatDiesInsteadOfLeavingHasLeft) {
    Cluster c(17, 3, {0, 1});
    Client& user = c.client();
    c.lose = [&c, done = false](NodeId from, NodeId, const Json& m) mutable {
        if (from != 1 || type_of(m) != DaemonMessage::leaving || std::exchange(done, true))
            return false;
        c.daemon(0).after(1, [&c] { c.kill_node(1); });
        return true;
    };
    const Json answer = done(c, user, drain_of("gn1"));
    EXPECT_EQ(answer["exit"], 0) << answer;
    EXPECT_FALSE(c.job_broken);
    expect_all_run(c);
    expect_sound(c);
}

// Not by a drain: one that only stands still reads it when it goes on.
TEST(Drain, DaemonThatIsGivenUpIsToldToLeaveToo) {
    Cluster c(19, 4, {0, 1});
    c.lose = [](NodeId from, NodeId, const Json&) { return from == 3; };
    Client& user = c.client();
    const Json answer = done(c, user, migrate({1}, "gn2"));
    EXPECT_EQ(answer["exit"], 0) << answer;
    EXPECT_EQ(c.given_up, std::set<NodeId>{3});
    EXPECT_TRUE(c.run(second, [&] { return c.dead.contains(3); }));
    expect_sound(c);
}

TEST(Drain, DaemonThatDoesNotAnswerStays) {
    Cluster c(18, 3, {0, 1});
    Client& user = c.client();
    c.lose = [](NodeId, NodeId, const Json& m) { return type_of(m) == DaemonMessage::leave; };
    const Json answer = done(c, user, drain_of("gn1"));
    EXPECT_EQ(answer["exit"], 1) << answer;
    EXPECT_NE(std::string(answer["error"]).find("do not switch the node off"), std::string::npos)
        << answer;
    c.lose = nullptr;
    EXPECT_EQ(done(c, user, drain_of("gn1"))["exit"], 0);
    expect_sound(c);
}

// --- joined ---

TEST(Grow, RanksMoveToTheNodeAndBack) {
    Cluster c(21, 3, {0, 1, 1, 2}, 2, {}, limit("3"));
    Client& user = c.client();
    const Json answer = done(c, user, grow_by("new", 3));
    ASSERT_EQ(answer["exit"], 0) << answer;
    EXPECT_EQ(answer["result"]["joined"], true);
    EXPECT_EQ(answer["result"]["slots"], 3);
    EXPECT_EQ(done(c, user, migrate({0, 1, 2}, "new"))["exit"], 0);
    EXPECT_EQ(ranks_on(c, 3), 3);
    EXPECT_EQ(done(c, user, checkpoint())["exit"], 0);
    const Json full = done(c, user, migrate({3}, "new"));
    EXPECT_NE(std::string(full["error"]).find("node new is full"), std::string::npos) << full;
    EXPECT_EQ(done(c, user, migrate({1, 2}, "gn1"))["exit"], 0);
    EXPECT_EQ(done(c, user, drain_of("new"))["exit"], 0);
    expect_all_run(c);
    expect_sound(c);
}

TEST(Grow, DrainedNodeJoinsAgain) {
    Cluster c(22, 3, {0, 1, 1}, 2, {}, limit("2"));
    Client& user = c.client();
    EXPECT_EQ(done(c, user, drain_of("gn1", {"gn2"}))["exit"], 0);
    const Json answer = done(c, user, grow_by("gn1"));
    ASSERT_EQ(answer["exit"], 0) << answer;
    EXPECT_EQ(answer["result"]["again"], false);
    EXPECT_EQ(done(c, user, migrate({1}, "gn1"))["exit"], 0);
    EXPECT_EQ(c.node_of(1), 3u);
    // mpirun's own has kept its daemon
    EXPECT_EQ(done(c, user, drain_of("gn0", {"gn1"}))["exit"], 0);
    EXPECT_NE(done(c, user, migrate({2}, "gn0"))["exit"], 0);
    EXPECT_EQ(done(c, user, grow_by("gn0"))["result"]["again"], true);
    EXPECT_EQ(done(c, user, migrate({2}, "gn0"))["exit"], 0);
    expect_all_run(c);
    expect_sound(c);
}

TEST(Grow, Refusals) {
    Cluster c(23, 3, {0, 1});
    Client& user = c.client();
    const auto refused = [&](const std::string& node, const char* why) {
        const Json answer = done(c, user, grow_by(node));
        EXPECT_EQ(answer["exit"], 1);
        EXPECT_EQ(answer["result"]["joined"], false);
        EXPECT_NE(std::string(answer["error"]).find(why), std::string::npos) << answer;
        EXPECT_NE(std::string(answer["error"]).find("the job, which is unharmed"),
                  std::string::npos);
    };
    refused("gn1", "node gn1 is part of the job already");
    refused("-oProxyCommand=true", "is no name of a node");
    refused("a b", "is no name of a node");
    refused("", "is no name of a node");
    c.chance.start = Start::fails;
    refused("new", "can you log in there");
    c.chance.start = Start::hangs;
    refused("new", "has not come up within 30 s");
    c.chance.start = Start::is_stock;
    refused("new", "is the same version of Ghost installed there?");
    c.chance.start = Start::runs;
    EXPECT_EQ(done(c, user, grow_by("new"))["exit"], 0);
    EXPECT_EQ(done(c, user, migrate({0}, "new"))["exit"], 0);
    expect_all_run(c);
    expect_sound(c);
}

// Before it has reported, and after.
TEST(Grow, DaemonThatDiesWhileItJoins) {
    for (const int64_t at : {int64_t{100'000}, int64_t{300'001}}) {
        Cluster c(24, 3, {0, 1});
        Client& user = c.client();
        c.daemon(0).after(at, [&c] { c.kill_node(3); });
        const Json answer = done(c, user, grow_by("new"));
        EXPECT_EQ(answer["exit"], 1) << answer;
        EXPECT_FALSE(c.job_broken);
        EXPECT_EQ(done(c, user, migrate({0}, "gn2"))["exit"], 0);
        expect_all_run(c);
        expect_sound(c);
    }
}

TEST(Grow, CancelledOneIsLeftOut) {
    for (const std::string phase : {"starting", "joining"}) {
        Cluster c(25, 3, {0, 1});
        Client& user = c.client();
        Client& other = c.client();
        user.on_phase = [&](const std::string& now) {
            if (now == phase) other.ask(cancel());
        };
        const Json answer = done(c, user, grow_by("new"));
        EXPECT_EQ(answer["exit"], 1) << answer;
        EXPECT_NE(std::string(answer["error"]).find("it was cancelled"), std::string::npos);
        EXPECT_NE(done(c, user, migrate({0}, "new"))["exit"], 0);
        EXPECT_EQ(done(c, user, checkpoint())["exit"], 0);
        expect_all_run(c);
        expect_sound(c);
    }
}

// --- interleavings ---

// Lists, whole nodes, drains and cancels of several users, with the death of a node that may be a
// target, of a wrapper, of a user.
struct Scene {
    explicit Scene(uint64_t seed)
        : random(seed),
          c(seed, 6, {0, 1, 2, 3, 1, 2, 3, 1}, 0, {}, limit(fmt::format("{}", 1 + seed % 6))) {}

    uint64_t any(uint64_t n) { return random() % n; }
    Json order() {
        switch (any(7)) {
            case 6:
                return grow_by(fmt::format("gn{}", 1 + any(8)));
            case 0:
                return drain_of(fmt::format("gn{}", 1 + any(4)));
            case 1:
                return all_from(fmt::format("gn{}", any(4)));
            case 2:
                return cancel();
            case 3:
                return migrate({RankId(any(8))}, "");
            default:
                return migrate({RankId(any(8)), RankId(any(8)), RankId(any(8))},
                               fmt::format("gn{}", any(8)));
        }
    }

    std::mt19937_64 random;
    Cluster c;
    std::vector<Client*> users;
};

void begin(Scene& s, uint64_t seed) {
    Cluster& c = s.c;
    c.chance.latency_us = 1 + static_cast<int64_t>(s.any(2000));
    c.chance.start_us = 1 + static_cast<int64_t>(s.any(20'000));
    if (s.any(8) == 0) c.chance.start = static_cast<Start>(s.any(4));
    c.chance.busy_percent = static_cast<int>(s.any(40));
    c.chance.fence_percent = static_cast<int>(s.any(40));
    if (s.any(4) == 0) c.chance.sharers = {1, 4};
    for (int i = 0; i < 7; ++i) {
        Client* user = s.users.emplace_back(&c.client());
        const Json order = s.order();
        c.daemon(0).after(static_cast<int64_t>(s.any(40'000)), [user, order] { user->ask(order); });
    }
    c.daemon(0).after(static_cast<int64_t>(s.any(80'000)), [&s, seed] {
        if (seed % 4 == 1 && s.c.running_copies(5) == 1) s.c.kill_wrapper(s.c.node_of(5), 5);
        if (seed % 4 == 2) s.users[0]->vanish();
        if (seed % 4 == 3 && !s.c.dead.contains(5) && ranks_on(s.c, 5) == 0) s.c.kill_node(5);
    });
}

TEST(Interleavings, CommandsDrainsCancelsAndDeaths) {
    const auto seeds =
        seeds_of(static_cast<uint64_t>(test::rounds("GHOST_TEST_COMMANDS", 200, 5000)));
    uint64_t drained = 0, cancelled = 0, joined = 0;
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
        SCOPED_TRACE(seed);
        Scene s(seed);
        Cluster& c = s.c;
        begin(s, seed);
        const auto told = [](Client* user) { return user->gone() || !user->results.empty(); };
        ASSERT_TRUE(c.run(300 * second, [&] { return std::ranges::all_of(s.users, told); }));
        c.run(60 * second);
        for (const std::string& v : c.violations) ADD_FAILURE() << v;
        const bool over = c.job_aborted || c.job_broken;
        EXPECT_TRUE(!over || seed % 4 == 1 || seed % 4 == 3) << c.abort_why;
        for (const Client* user : s.users) {
            if (user->gone()) continue;
            ASSERT_EQ(user->results.size(), 1u);
            const Json& answer = user->results[0];
            const Json& result = answer["result"];
            const bool whole = result.is_object() && result.value("left", false);
            drained += whole;
            joined += result.is_object() && result.value("joined", false);
            cancelled += result.is_array() && !result.empty() && result[0].contains("undone");
            if (answer["exit"] != 0 || over || !result.is_array()) continue;
            for (const Json& row : result)
                EXPECT_TRUE(row.contains("undone") || row["moved"] == true ||
                            row["from"] == row["to"])
                    << row;
        }
        if (over) continue;
        for (RankId rank = 0; rank < 8; ++rank) {
            if (c.ended[rank]) continue;
            EXPECT_EQ(c.running_copies(rank), 1) << rank;
            EXPECT_TRUE(c.rank_attached(rank)) << rank;
        }
        const Json ps = c.ps();
        EXPECT_EQ(ps["waiting"], 0);
        EXPECT_EQ(c.held, 0);
        for (const Json& node : ps["nodes"]) {
            EXPECT_TRUE(node["drained"] == false || node["used"] == 0) << node;
        }
        if (testing::Test::HasFailure()) return;
    }
    std::printf(
        "%lu interleavings: %lu nodes left, %lu joined, %lu times something was cancelled\n", seeds,
        drained, joined, cancelled);
    EXPECT_GT(drained, seeds / 10);
    EXPECT_GT(cancelled, seeds / 10);
    EXPECT_GT(joined, seeds / 10);
}

}  // namespace
}  // namespace ghost::plugin::sim
