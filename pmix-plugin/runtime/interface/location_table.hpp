// SPDX-License-Identifier: BSD-3-Clause
// Where each rank of the job can be reached (PROTOCOL.md, "Locations"). Held by the coordinator,
// replicated to every node agent.
#pragma once

#include <map>

#include "kernet-btl/transport/location.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

class LocationTable {
  public:
    // Takes a location that is not older than the known one; says whether it did.
    bool take(const kernet::Location& location) {
        const auto known = entries_.find(location.rank);
        if (known != entries_.end() && known->second.epoch > location.epoch) return false;
        entries_[location.rank] = location;
        return true;
    }
    const kernet::Location* find(RankId rank) const {
        auto it = entries_.find(rank);
        return it == entries_.end() ? nullptr : &it->second;
    }
    const std::map<RankId, kernet::Location>& all() const { return entries_; }

  private:
    std::map<RankId, kernet::Location> entries_;
};

}  // namespace ghost::plugin
