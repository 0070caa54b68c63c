// SPDX-License-Identifier: BSD-3-Clause
// What may happen to one party of a move under the simulated runtime, and when.
#pragma once

#include <gtest/gtest.h>

#include <iterator>
#include <string>
#include <tuple>

#include "tests/unit/plugin_checks.hpp"

namespace ghost::plugin::sim {

enum class MoveFault {
    source_wrapper,
    target_wrapper,
    source_tree,
    source_node,
    target_node,
    third_node,
    cut_target,
    cut_third,
    client,
    lose_from_source,
    lose_from_target,
    lose_to_source,
    lose_to_target,
    lose_local,
    rank_ends,         // by itself
    rank_ends_slowly,  // its wrapper says so late, what it does breaks off at once
    target_last_ends,  // the only rank of the target does
    none,
};
inline constexpr int move_faults = static_cast<int>(MoveFault::none) + 1;
inline constexpr const char* move_fault_names[] = {
    "source_wrapper",   "target_wrapper",   "source_tree",
    "source_node",      "target_node",      "third_node",
    "cut_target",       "cut_third",        "client",
    "lose_from_source", "lose_from_target", "lose_to_source",
    "lose_to_target",   "lose_local",       "rank_ends",
    "rank_ends_slowly", "target_last_ends", "none"};
static_assert(std::size(move_fault_names) == move_faults);
inline constexpr const char* move_states[] = {"preparing",    "connecting", "holding", "gating",
                                              "transferring", "switching",  "going"};

inline void inject(Cluster& c, Client& user, MoveFault fault) {
    // Answers of the node agents, not the pings: those are another subject (cut_*).
    auto lossy = [&c](NodeId who, bool from) {
        lose_one(c, [who, from](NodeId f, NodeId t, DaemonMessage type) {
            using enum DaemonMessage;
            return (from ? f : t) == who && type != ping && type != pong && type != location &&
                   type != located;
        });
    };
    switch (fault) {
        case MoveFault::source_wrapper:
            return c.kill_wrapper(1, 1);
        case MoveFault::target_wrapper:
            return c.kill_wrapper(2, 1);
        case MoveFault::source_tree:
            return c.kill_tree(1, 1);
        case MoveFault::source_node:
            return c.kill_node(1);
        case MoveFault::target_node:
            return c.kill_node(2);
        case MoveFault::third_node:
            return c.kill_node(3);
        case MoveFault::cut_target:
            return c.cut(2);
        case MoveFault::cut_third:
            return c.cut(3);
        case MoveFault::client:
            return user.vanish();
        case MoveFault::lose_from_source:
            return lossy(1, true);
        case MoveFault::lose_from_target:
            return lossy(2, true);
        case MoveFault::lose_to_source:
            return lossy(1, false);
        case MoveFault::lose_to_target:
            return lossy(2, false);
        case MoveFault::lose_local:
            return c.lose_one_local();
        case MoveFault::rank_ends:
            return c.end_rank(1);
        case MoveFault::rank_ends_slowly:
            return c.end_rank_slowly(1);
        case MoveFault::target_last_ends:
            return c.end_rank(2);
        case MoveFault::none:
            return;
    }
}

inline std::vector<NodeId> places(MoveFault fault) {
    if (fault == MoveFault::target_last_ends) return {0, 1, 2};
    return {0, 1};
}

// What must hold when everything has come to rest.
inline void judge(Cluster& c, Client& user, MoveFault fault, const std::string& what,
                  bool live = false) {
    SCOPED_TRACE(what);
    expect_no_violation(c);
    EXPECT_FALSE(c.ps().contains("move")) << "the coordinator is not idle";
    const bool over = c.ended[1] || c.job_aborted || c.job_broken;
    if (!over) {
        EXPECT_EQ(c.running_copies(1), 1);
    }
    // The word of one that comes back between the two stops of a live move may be lost: it is said
    // then that the job is harmed.
    const bool told = live && fault == MoveFault::lose_local && !user.results.empty() &&
                      user.results[0]["exit"] == 3;
    if (!over && !told) {
        EXPECT_TRUE(c.rank_attached(1));
    }
    if (c.ended[1]) {
        EXPECT_EQ(c.running_copies(1), 0);
    }
    if (fault == MoveFault::third_node || fault == MoveFault::cut_third ||
        fault == MoveFault::client || fault == MoveFault::target_last_ends) {
        EXPECT_FALSE(over);
        EXPECT_EQ(c.node_of(1), 2u);
    }
    const bool ends = fault == MoveFault::rank_ends || fault == MoveFault::rank_ends_slowly;
    if (ends) {
        EXPECT_FALSE(c.job_aborted || c.job_broken) << c.abort_why;
    }
    if (user.gone()) return;
    ASSERT_EQ(user.results.size(), 1u) << "the client must be told once";
    const Json& r = user.results[0];
    const bool moved = !r["result"].empty() && r["result"][0]["moved"] == true;
    EXPECT_EQ(moved, r["exit"] == 0) << r;
    if (ends && !moved) {
        EXPECT_EQ(r["exit"], 1) << r;
        if (c.ended[1]) {
            const std::string error = r["error"];
            EXPECT_TRUE(error.ends_with(": rank 1 has ended")) << error;
        }
    }
    if (r["exit"] == 1 && !over) {
        std::string error = r["error"];
        // Whose word is lost is not known to go on, though it does.
        const bool heard = error.find("did not confirm") == std::string::npos;
        EXPECT_TRUE(heard || fault == MoveFault::lose_local) << error;
        // After a live try the one by stop may be refused, in words of its own: nothing was done.
        const bool refused = error.find("rank 1 was not moved from") == std::string::npos;
        EXPECT_TRUE(!refused || r["result"][0].contains("not_live")) << r;
        if (!refused) {
            EXPECT_NE(error.find(heard ? "the job is unharmed: rank 1 goes on at gn1"
                                       : "the job is unharmed"),
                      std::string::npos)
                << error;
        }
        EXPECT_EQ(c.node_of(1), 1u);
    }
    if (moved && !over) {
        EXPECT_EQ(c.node_of(1), 2u);
    }
}

inline std::string move_fault_name(const testing::TestParamInfo<std::tuple<int, int>>& info) {
    return std::string(move_states[std::get<0>(info.param)]) + "_" +
           move_fault_names[std::get<1>(info.param)];
}

}  // namespace ghost::plugin::sim
