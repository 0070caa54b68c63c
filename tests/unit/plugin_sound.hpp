// SPDX-License-Identifier: BSD-3-Clause
// What must hold after every scenario of the simulated job.
#pragma once

#include <gtest/gtest.h>

#include "tests/unit/plugin_sim.hpp"

namespace ghost::plugin::sim {

// No rule was broken on the way, and no fence is held any more.
inline void expect_no_violation(Cluster& c) {
    for (const std::string& v : c.violations) ADD_FAILURE() << v;
    EXPECT_EQ(c.held, 0) << "fences are still held";
    EXPECT_EQ(c.holds, c.releases + c.settles);
}

inline void expect_sound(Cluster& c) {
    expect_no_violation(c);
    for (NodeId node = 0; node < c.size(); node++) {
        if (c.job_aborted || c.dead.contains(node)) continue;
        EXPECT_EQ(c.raised(node), 0) << "node " << node;
    }
}

}  // namespace ghost::plugin::sim
