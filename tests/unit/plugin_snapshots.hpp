// SPDX-License-Identifier: BSD-3-Clause
// What tests of snapshots under the simulated runtime ask for and look at.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "pmix-plugin/protocol/message.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "tests/unit/plugin_sim.hpp"

namespace ghost::plugin::sim {

constexpr int64_t second = 1'000'000;  // us

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
