// SPDX-License-Identifier: BSD-3-Clause
// Where ranks can go: what room the job's nodes have, with what is under way counted.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "pmix-plugin/coordinator/operations/operation.hpp"

namespace ghost::plugin {

// Ranks that are on a node, or move there, beside those of `but`.
int used_slots(const Job& job, NodeId node, const std::set<RankId>& but);

// The node with the most free slots that takes all these ranks; of several the one with the fewest
// ranks. `among`: names of those that may be chosen; none: any but `from`. A drained node is none.
Result<NodeId> choose_target(const Job& job, const std::vector<std::string>& among, NodeId from,
                             const std::set<RankId>& ranks);

// Every rank's place when those of nodes that are lost are started anew: the others stay; a node
// without ranks takes one first, then that with the most free slots.
Result<std::vector<std::pair<RankId, NodeId>>> places_after_loss(const Job& job);

}  // namespace ghost::plugin
