// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/copies.hpp"

#include <algorithm>
#include <utility>

namespace ghost::plugin {

std::vector<NodeId> ring_of(const Job& job) {
    std::set<NodeId> hosts;
    for (const RankInfo& info : job.adapter.ranks()) hosts.insert(info.node);
    std::vector<NodeId> ring;
    for (const NodeId node : job.liveness.live_nodes())
        if (!job.drained.contains(node) && (hosts.contains(node) || job.adapter.slots(node) > 0))
            ring.push_back(node);
    std::ranges::sort(ring);
    return ring;
}

std::map<NodeId, NodeId> partners(const Job& job) {
    const auto ring = ring_of(job);
    std::map<NodeId, NodeId> out;
    for (size_t i = 0; i < ring.size() && ring.size() > 1; i++)
        out[ring[i]] = ring[(i + 1) % ring.size()];
    return out;
}

std::vector<std::string> files_of(const std::string& folder, const std::string& file,
                                  const std::vector<std::string>& chain) {
    std::vector<std::string> out{folder + "/" + file};
    out.insert(out.end(), chain.begin(), chain.end());
    return out;
}

// Of several that have it the one that sends least so far.
CopyPlan plan_copies(const Job& job, const Manifest& manifest, const Holders& holders,
                     const std::vector<std::pair<RankId, NodeId>>& places) {
    CopyPlan out;
    std::map<NodeId, uint64_t> sends;
    for (const auto& [rank, node] : places) {
        const auto* row = manifest.find(rank);
        const auto known = holders.find(rank);
        std::vector<NodeId> from;
        if (row != nullptr && known != holders.end())
            for (const NodeId holder : known->second)
                if (job.liveness.alive(holder)) from.push_back(holder);
        if (from.empty()) {
            out.lacking.push_back(rank);
            continue;
        }
        if (std::ranges::find(from, node) != from.end()) continue;
        const NodeId best = *std::ranges::min_element(from, {}, [&](NodeId n) { return sends[n]; });
        sends[best] += row->bytes;
        out.copies.push_back({rank, best, node, files_of(manifest.name, row->file, row->chain)});
    }
    return out;
}

}  // namespace ghost::plugin
