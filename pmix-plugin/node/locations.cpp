// This node's copy of the directory, and what its ranks are told of it.
#include "base/log.hpp"
#include "pmix-plugin/node/impl.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t welcome_bytes = 64 * 1024;

size_t size_of(const Json& m) {
    return m.dump(-1, ' ', false, Json::error_handler_t::replace).size();
}

}  // namespace

// The rank knows its listeners; who and where it is, we know.
Json NodeAgent::Impl::settled_location(const RankSlot& s, const Json& m) const {
    const Json* given = field(m, "location");
    Json location = given != nullptr && given->is_object() ? *given : Json::object();
    location["rank"] = s.rank;
    location["epoch"] = s.epoch;
    location["node"] = adapter_.self();
    location["node_name"] = own_name();
    location["attached"] = true;
    return location;
}

void NodeAgent::Impl::take_locations(const Json& m) {
    const Json* entries = field(m, "entries");
    if (entries == nullptr || !entries->is_array()) return;
    const uint64_t version = number(m, "version");
    if (version_ != 0 && version > version_ + 1) {
        log::warning("directory: versions {} to {} are missing here", version_ + 1, version - 1);
    }
    version_ = std::max(version_, version);
    for (const Json& location : *entries) {
        if (!directory_.take(location)) continue;
        auto peer = static_cast<RankId>(number(location, "rank"));
        for (auto& [rank, s] : slots_) {
            if (rank != peer && s.peers.contains(peer)) tell_location(s, location);
        }
    }
}

void NodeAgent::Impl::tell_location(RankSlot& s, const Json& location) {
    if (!s.agent) return;  // it asks, or is told by `welcome`, when it is back
    Json m = location;
    m["t"] = "location";
    s.agent->send(m);
}

void NodeAgent::Impl::locate(RankSlot& s, const Json& m) {
    if (!has_number(m, "peer") || number(m, "peer") > UINT32_MAX) return;
    auto peer = static_cast<RankId>(number(m, "peer"));
    s.peers.insert(peer);
    if (const Json* location = directory_.find(peer)) tell_location(s, *location);
}

Json NodeAgent::Impl::known_peers(RankSlot& s) {
    Json peers = Json::array();
    size_t bytes = 0;
    for (const auto& [rank, location] : directory_.all()) {
        if (rank == s.rank) continue;
        s.peers.insert(rank);
        bytes += size_of(location);
        if (bytes <= welcome_bytes) peers.push_back(location);
    }
    return peers;
}

}  // namespace ghost::plugin
