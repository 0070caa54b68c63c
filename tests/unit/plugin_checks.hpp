// SPDX-License-Identifier: BSD-3-Clause
// What must hold after every scenario of the simulated job, and what tests of its snapshots ask
// for.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/runtime/sim/cluster.hpp"
#include "tests/json_packet.hpp"

namespace ghost::plugin::sim {

// No rule was broken on the way, and no fence is held any more.
inline void expect_no_violation(Cluster& c) {
    for (const std::string& v : c.violations) ADD_FAILURE() << v;
    EXPECT_EQ(c.held, 0) << "fences are still held";
    EXPECT_EQ(c.holds, c.releases + c.settles);
}

inline void expect_sound(Cluster& c) {
    expect_no_violation(c);
    // The job's secret is told to wrappers and ranks, in no message between daemons.
    for (const Json& m : c.sent) EXPECT_EQ(m.value("secret", ""), "") << m;
    for (NodeId node = 0; node < c.size(); node++) {
        if (c.job_aborted || c.dead.contains(node)) continue;
        EXPECT_EQ(c.raised(node), 0) << "node " << node;
    }
}

// What one daemon says to another.
inline DaemonMessage type_of(const Json& m) {
    return ghost::type_of<DaemonMessage>(between_daemons, m).value();
}

// The next message between daemons that fits is lost, once.
inline void lose_one(Cluster& c,
                     std::function<bool(NodeId from, NodeId to, DaemonMessage type)> which) {
    c.lose = [which = std::move(which), left = 1](NodeId f, NodeId t, const Json& m) mutable {
        const bool hit = left > 0 && which(f, t, type_of(m));
        if (hit) --left;
        return hit;
    };
}

constexpr int64_t second = 1'000'000;  // us

inline Json migrate(std::vector<RankId> ranks, const std::string& to,
                    const std::string& mode = "stop") {
    return {{"t", "migrate"}, {"ranks", std::move(ranks)}, {"to", to}, {"mode", mode}};
}

inline Json checkpoint(const std::string& then = "continue", const std::string& to = "") {
    return {{"t", "checkpoint"}, {"to", to}, {"then", then}};
}

inline void expect_all_run(Cluster& c) {
    for (auto [rank, over] : c.ended) {
        if (over) continue;
        EXPECT_EQ(c.running_copies(rank), 1) << "rank " << rank;
        EXPECT_TRUE(c.rank_attached(rank)) << "rank " << rank;
    }
}

inline std::vector<Snapshot> snapshots(Cluster& c) {
    auto list = list_snapshots(c.folder());
    return list.ok() ? *list : std::vector<Snapshot>();
}

// By the first letters, the oldest first.
inline std::string kinds_of(const std::vector<Snapshot>& all) {
    std::string kinds;
    for (auto it = all.rbegin(); it != all.rend(); ++it) kinds += it->manifest->kind[0];
    return kinds;
}

// What is there is whole, and nothing is left of what is not.
inline void expect_whole_folder(Cluster& c) {
    for (const Snapshot& s : snapshots(c)) EXPECT_TRUE(s.whole) << s.name << ": " << s.why;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(c.folder(), none)) {
        EXPECT_EQ(entry.path().string().find(".partial"), std::string::npos) << entry.path();
    }
}

}  // namespace ghost::plugin::sim
