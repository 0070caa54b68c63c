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
    target_last_ends,  // the only rank of the target does
    none,
};
inline constexpr int move_faults = static_cast<int>(MoveFault::none) + 1;
inline constexpr const char* move_fault_names[] = {"source_wrapper",
                                                   "target_wrapper",
                                                   "source_tree",
                                                   "source_node",
                                                   "target_node",
                                                   "third_node",
                                                   "cut_target",
                                                   "cut_third",
                                                   "client",
                                                   "lose_from_source",
                                                   "lose_from_target",
                                                   "lose_to_source",
                                                   "lose_to_target",
                                                   "lose_local",
                                                   "rank_ends",
                                                   "target_last_ends",
                                                   "none"};
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
        case MoveFault::target_last_ends:
            return c.end_rank(2);
        case MoveFault::none:
            return;
    }
}

inline std::string move_fault_name(const testing::TestParamInfo<std::tuple<int, int>>& info) {
    return std::string(move_states[std::get<0>(info.param)]) + "_" +
           move_fault_names[std::get<1>(info.param)];
}

}  // namespace ghost::plugin::sim
