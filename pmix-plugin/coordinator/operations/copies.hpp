// SPDX-License-Identifier: BSD-3-Clause
// Which node has copies of which other's ghosts (docs/PROTOCOL.md, "Copies").
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/coordinator/operations/operation.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {

// Nodes that have a rank's ghost, and those it is based on.
using Holders = std::map<RankId, std::set<NodeId>>;

// The nodes that are part of the job, by their numbers; a node that has no slots for ranks is none
// of it, nor is one that is drained.
std::vector<NodeId> ring_of(const Job& job);
// Of each of them the next one. Empty: there is only one.
std::map<NodeId, NodeId> partners(const Job& job);

// The files of one rank, in the folder of snapshots; `folder` is the snapshot's name there now.
std::vector<std::string> files_of(const std::string& folder, const std::string& file,
                                  const std::vector<std::string>& chain);

// What has to be sent so that every rank's ghost is at its place; `lacking`: ranks whose ghost no
// node has that lives.
struct CopyPlan {
    std::vector<GhostCopy> copies;
    std::vector<RankId> lacking;
};
CopyPlan plan_copies(const Job& job, const Manifest& manifest, const Holders& holders,
                     const std::vector<std::pair<RankId, NodeId>>& places);

}  // namespace ghost::plugin
