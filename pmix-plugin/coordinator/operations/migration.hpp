// SPDX-License-Identifier: BSD-3-Clause
// `ghost migrate`: ranks that move to a node, as many at the same time as the engine allows.
#pragma once

#include <string>
#include <vector>

#include "pmix-plugin/coordinator/operations/engine.hpp"
#include "pmix-plugin/coordinator/operations/move.hpp"

namespace ghost::plugin {

struct MigrationOrder {
    uint64_t id = 0;  // of its requests
    std::vector<RankId> ranks;
    std::string all_from = {};    // in place of them: all that are on this node
    std::vector<std::string> to;  // one node, or several to choose from; none: any other one
    bool is_chosen = false;       // so is one node: it may be too full
    std::string mode;  // live, stop, or auto: live where that can be and is quicker, else stop;
                       // empty: as the job's parameters say
    bool with_sharers = false;  // of memory: they move together, or it is refused
    // One that does not move keeps no other one; those that share memory move together, after all
    // others.
    bool all_that_can = false;
};

struct MigrationResult {
    std::vector<Move> moves;  // that were tried
    int exit = 0;             // 0: all moved; 1: not, and nothing is harmed; 3: the job is
    std::string error;
};

// A request for each rank; with sharers one for all of them, which move at once. After one that
// does not move no other one begins: what the user meant by the rest may no longer hold, and
// nothing is lost by asking again. `finished` is called once, perhaps before this returns:
// then there is no request.
std::vector<Request> migration(Job& job, uint64_t owner, MigrationOrder order,
                               MoveOperation::Progress progress,
                               std::function<void(const MigrationResult&)> finished);

}  // namespace ghost::plugin
