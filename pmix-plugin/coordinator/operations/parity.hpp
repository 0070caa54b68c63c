// SPDX-License-Identifier: BSD-3-Clause
// Which nodes are a group for parity, whose ghosts it protects, and which lost ones it brings back
// (ghost_checkpoint_to xor:N; docs/SNAPSHOT_FORMAT.md, "Parity").
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/coordinator/operations/operation.hpp"
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"
#include "pmix-plugin/snapshots/parity.hpp"

namespace ghost::plugin {

// Groups of neighbours, as equal as can be: of at most `most`, but never of one node only.
std::vector<std::vector<NodeId>> parity_groups(const std::vector<NodeId>& ring, uint32_t most);

// What each node has that is to be protected, by groups of the job's nodes; none on one node.
using NodeFiles = std::map<NodeId, std::vector<ParitySet::File>>;
std::vector<ParitySet> parity_sets(const Job& job, const std::string& snapshot, uint64_t seq,
                                   uint32_t most, const NodeFiles& files);
std::vector<XorStream> parity_streams(const std::vector<ParitySet>& sets, const std::string& now,
                                      uint64_t attempt);

// How a rank's ghost, which no living node has, and those it is based on are made at `to`; nothing:
// they cannot be, and `lost` (if it is not null) are the nodes that would be needed.
std::optional<std::vector<XorStream>> rebuild(const Job& job, const KeptSnapshot& one, RankId rank,
                                              NodeId to, uint64_t attempt,
                                              std::set<NodeId>* lost = nullptr);

// What a snapshot needs for it to survive the loss of a node again: ghosts that are made of parity,
// or, if no such ghost is lacking, parity. Neither: nothing is lacking, or nothing can be done.
struct ParityMend {
    std::vector<XorStream> streams;
    std::vector<std::pair<RankId, NodeId>> rebuilt;
    std::vector<ParitySet> sets;  // instead of those it has
};
ParityMend plan_parity(const Job& job, const KeptSnapshot& one, uint64_t seq);

}  // namespace ghost::plugin
