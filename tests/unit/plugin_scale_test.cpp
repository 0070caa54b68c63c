// SPDX-License-Identifier: BSD-3-Clause
// Messages and depth of a snapshot and a recovery grow as the log of the nodes.
#include <gtest/gtest.h>

#include <cstdlib>

#include "benchmarks/scale/job_model.hpp"

namespace ghost::plugin::scale {
namespace {

void expect_five_steps(const Report& r) {
    constexpr size_t steps = 5;
    ASSERT_TRUE(r.complete) << r.error;
    ASSERT_EQ(r.steps.size(), steps);
    for (const StepCost& c : r.steps) {
        SCOPED_TRACE(c.step);
        EXPECT_LE(c.most_received, DaemonTree::width);
        EXPECT_EQ(c.most_sent, 1u);
        EXPECT_EQ(c.all, r.nodes - 1);
        EXPECT_LE(c.depth, tree_depth(r.nodes));
    }
    EXPECT_EQ(r.to_coordinator, steps);
}

void expect_bounded(uint64_t ranks, uint32_t per_node) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks, " + std::to_string(per_node) + " a node");
    const Reports reports = measure(ranks, per_node);
    expect_five_steps(reports.snapshot);
    EXPECT_EQ(reports.snapshot.orders, 5);  // prepare, ping, gate, close, end
    EXPECT_EQ(reports.snapshot.most_local, local_messages * per_node);
    expect_five_steps(reports.recovery);
    EXPECT_EQ(reports.recovery.orders, 6);  // stop, start, prepare, import, go; a node is lost
}

TEST(Scale, Depth) {
    for (auto [nodes, depth] : {std::pair{1u, 0},
                                {2u, 1},
                                {9u, 1},
                                {10u, 2},
                                {73u, 2},
                                {74u, 3},
                                {1000u, 4},
                                {1563u, 4},
                                {100'000u, 6}}) {
        EXPECT_EQ(tree_depth(nodes), depth) << nodes;
    }
}

TEST(Scale, Thousand) {
    expect_bounded(1'000, 64);
    expect_bounded(1'000, 1);
}

TEST(Scale, HundredThousand) {
    if (std::getenv("GHOST_TEST_SLOWER")) return expect_bounded(10'000, 64);
    expect_bounded(100'000, 64);
}

// Every daemon is somebody's child, once, whoever is missing.
TEST(Scale, TreeOverWhoeverIsLeft) {
    for (NodeId count : {1u, 2u, 9u, 50u, 200u}) {
        for (unsigned step : {0u, 2u, 3u, 7u}) {
            std::vector<NodeId> without;
            for (NodeId id = 1; step != 0 && id < count; id += step) without.push_back(id);
            uint64_t edges = 0, members = 0;
            for (NodeId id = 0; id < count; ++id) {
                const DaemonTree tree(count, without, id);
                if (!tree.member()) continue;
                ++members;
                EXPECT_EQ(tree.root(), id == 0);
                EXPECT_LE(tree.children().size(), DaemonTree::width);
                for (NodeId child : tree.children()) {
                    ++edges;
                    EXPECT_EQ(DaemonTree(count, without, child).parent(), id);
                }
            }
            EXPECT_EQ(members, count - without.size());
            EXPECT_EQ(edges, members - 1);
        }
    }
}

}  // namespace
}  // namespace ghost::plugin::scale
