// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/targets.hpp"

#include <algorithm>
#include <climits>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <tuple>

#include "pmix-plugin/coordinator/operations/engine.hpp"

namespace ghost::plugin {

int used_slots(const Job& job, NodeId node, const std::set<RankId>& but) {
    int used = 0;
    for (const RankInfo& info : job.adapter.ranks()) {
        const bool here = info.node == node || job.engine.target_of(info.rank) == node;
        used += info.life != RankLife::ended && here && !but.contains(info.rank);
    }
    return used;
}

namespace {

// Better ones are greater.
struct Room {
    int free = 0;  // slots
    int used = 0;
    NodeId node = 0;
    bool operator<(const Room& other) const {
        return std::tuple(free, -used, -static_cast<int64_t>(node)) <
               std::tuple(other.free, -other.used, -static_cast<int64_t>(other.node));
    }
};

std::string why_none(const std::vector<std::string>& among, size_t ranks) {
    return fmt::format(
        "no {} has {} free: add slots or nodes to the host list, or allow more ranks than slots "
        "(mpirun --oversubscribe)",
        among.empty() ? std::string("other node of the job")
                      : fmt::format("node of {}", fmt::join(among, ", ")),
        ranks == 1 ? std::string("a slot") : fmt::format("{} slots", ranks));
}

}  // namespace

Result<NodeId> choose_target(const Job& job, const std::vector<std::string>& among, NodeId from,
                             const std::set<RankId>& ranks) {
    std::set<NodeId> may;
    for (const std::string& name : among)
        if (const auto node = job.adapter.find_node(name)) may.insert(*node);
    std::optional<Room> best;
    for (const NodeId node : job.liveness.live_nodes()) {
        if (node == from || job.drained.contains(node)) continue;
        if (!among.empty() && !may.contains(node)) continue;
        const int slots = job.adapter.slots(node), used = used_slots(job, node, ranks);
        const Room room{slots > 0 ? slots - used : INT_MAX, used, node};
        const bool fits = room.free >= static_cast<int>(ranks.size());
        if ((fits || job.settings.oversubscribe) && (!best || *best < room)) best = room;
    }
    if (best) return best->node;
    return make_error(Code::not_found, "find a node for",
                      fmt::format("rank {}", fmt::join(ranks, ", ")),
                      why_none(among, ranks.size()));
}

Result<std::vector<std::pair<RankId, NodeId>>> places_after_loss(const Job& job) {
    std::vector<std::pair<RankId, NodeId>> places;
    std::vector<RankId> homeless;
    std::map<NodeId, int> used;
    const auto live = job.liveness.live_nodes();
    const std::set<NodeId> alive(live.begin(), live.end());
    for (const RankInfo& info : job.adapter.ranks()) {
        if (!alive.contains(info.node)) {
            homeless.push_back(info.rank);
            continue;
        }
        places.emplace_back(info.rank, info.node);
        ++used[info.node];
    }
    for (const RankId rank : homeless) {
        std::optional<std::pair<bool, Room>> best;
        for (const NodeId node : live) {
            if (job.drained.contains(node)) continue;
            const int slots = job.adapter.slots(node), here = used[node];
            const Room room{slots > 0 ? slots - here : INT_MAX, here, node};
            const std::pair offer(here == 0, room);
            if ((room.free > 0 || job.settings.oversubscribe) && (!best || *best < offer))
                best = offer;
        }
        if (!best)
            return make_error(Code::not_found, "find a node for", fmt::format("rank {}", rank),
                              why_none({}, 1));
        places.emplace_back(rank, best->second.node);
        ++used[best->second.node];
    }
    return places;
}

}  // namespace ghost::plugin
