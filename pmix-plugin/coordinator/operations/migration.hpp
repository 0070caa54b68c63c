// SPDX-License-Identifier: BSD-3-Clause
// `ghost migrate`: ranks that move to a node, one after the other.
#pragma once

#include <string>
#include <vector>

#include "pmix-plugin/coordinator/operations/engine.hpp"
#include "pmix-plugin/coordinator/operations/move.hpp"

namespace ghost::plugin {

struct MigrationOrder {
    std::vector<RankId> ranks;
    std::string to;
    std::string mode;           // live, stop, or auto: live, and where that cannot be, stop
    bool with_sharers = false;  // of memory: they move together, or it is refused
};

struct MigrationResult {
    std::vector<Move> moves;  // that were tried
    int exit = 0;             // 0: all moved; 1: not, and nothing is harmed; 3: the job is
    std::string error;
};

// The first rank that does not move ends it: what the user meant by the rest may no longer hold,
// and nothing is lost by asking again. Ranks that share memory are moved at once. `moved` is called
// after every move, `finished` once.
Request migration(Job& job, uint64_t owner, MigrationOrder order, MoveOperation::Progress progress,
                  std::function<void(const Move&)> moved,
                  std::function<void(const MigrationResult&)> finished);

}  // namespace ghost::plugin
