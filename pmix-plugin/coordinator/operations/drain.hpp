// SPDX-License-Identifier: BSD-3-Clause
// `ghost drain`: all ranks leave a node, and then its daemon leaves the job.
#pragma once

#include <string>
#include <vector>

#include "pmix-plugin/coordinator/operations/leave.hpp"
#include "pmix-plugin/coordinator/operations/migration.hpp"

namespace ghost::plugin {

struct DrainOrder {
    uint64_t id = 0;  // of its requests
    std::string node;
    std::vector<std::string> to;  // nodes to choose from; none: any other one
    std::string mode;             // of moves
};

struct DrainResult {
    struct Stays {
        RankId rank = 0;
        std::string why;
    };
    MigrationResult moved;
    std::vector<Stays> stay;  // ranks that are still there
    bool drained = false;     // no rank is there, and none will be
    bool left = false;        // its daemon is no part of the job any more
    int exit = 0;             // 0: drained; 1: not, and nothing is harmed; 3: the job is
    std::string error;
    std::string note;  // of one that is drained: what that means
};

// No rank goes to the node from now on, unless the drain fails. A rank that does not move keeps no
// other one. `finished` is called once, perhaps before this returns.
void drain(Job& job, uint64_t owner, DrainOrder order, MoveOperation::Progress progress,
           std::function<void(const DrainResult&)> finished);

}  // namespace ghost::plugin
