// SPDX-License-Identifier: BSD-3-Clause
// This node's copy of the table of locations, and what its ranks are told of it.
#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"
#include "pmix-plugin/settings/job_settings.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t welcome_bytes = 64 * 1024;

}  // namespace

// The rank knows its listeners; who and where it is, we know.
kernet::Location NodeAgent::Impl::settled_location(const RankSlot& s,
                                                   kernet::Location location) const {
    location.rank = s.rank;
    location.epoch = s.epoch;
    location.node = static_cast<int>(adapter_.self());
    location.node_name = own_name();
    location.attached = true;
    return location;
}

void NodeAgent::Impl::take_locations(const Locations& m) {
    if (version_ != 0 && m.version > version_ + 1) {
        log::warning("locations: versions {} to {} are missing here", version_ + 1, m.version - 1);
    }
    version_ = std::max(version_, m.version);
    for (const kernet::Location& location : m.entries) {
        if (!locations_.take(location)) continue;
        for (auto& [rank, s] : slots_) {
            // (of an end everybody is told: the first message to that rank may come at any time)
            if (rank != location.rank && (location.ended || s.peers.contains(location.rank)))
                tell_location(s, location);
        }
    }
}

void NodeAgent::Impl::tell_location(RankSlot& s, const kernet::Location& location) {
    if (s.agent) s.agent->tell(location);  // else it asks, or is told by `welcome`
}

void NodeAgent::Impl::locate(RankSlot& s, RankId peer) {
    s.peers.insert(peer);
    if (const kernet::Location* location = locations_.find(peer)) tell_location(s, *location);
}

// One that left by MPI_Finalize has told its peers itself. Of most others the runtime ends the job,
// and what it says of them is not to be mixed with the errors of those who hear of it from us.
void NodeAgent::Impl::report_ended(const RankSlot& s, int status) {
    if (s.finalizing || !s.thread) return;
    kernet::Location location = settled_location(s, {});
    location.attached = false;
    location.ended = true;
    const auto allowed = adapter_.parameter("orte_allowed_exit_without_sync");
    if (status == 0 && allowed && is_yes(*allowed)) return report(Located{location});
    adapter_.after(settings_.end_us, [weak = weak_from_this(), location] {
        if (auto self = weak.lock(); self && self->running_) self->report(Located{location});
    });
}

std::vector<kernet::Location> NodeAgent::Impl::known_peers(RankSlot& s) {
    std::vector<kernet::Location> peers;
    size_t bytes = 0;
    for (const auto& [rank, location] : locations_.all()) {
        if (rank == s.rank) continue;
        s.peers.insert(rank);
        bytes += schema::encode(location).size();
        if (bytes <= welcome_bytes) peers.push_back(location);
    }
    return peers;
}

}  // namespace ghost::plugin
