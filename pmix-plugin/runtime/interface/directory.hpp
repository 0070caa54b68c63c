// Where each rank of the job can be reached (PROTOCOL.md, "Locations"). Held by the coordinator,
// replicated to every node agent.
#pragma once

#include <map>

#include "pmix-plugin/protocol/message.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

class Directory {
  public:
    // Takes a location if it is whole and not older than the known one; says whether it did.
    bool take(const Json& location) {
        if (!has_number(location, "rank") || !has_number(location, "epoch")) return false;
        auto rank = static_cast<RankId>(number(location, "rank"));
        auto known = entries_.find(rank);
        if (known != entries_.end() && number(known->second, "epoch") > number(location, "epoch")) {
            return false;
        }
        entries_[rank] = location;
        return true;
    }
    const Json* find(RankId rank) const {
        auto it = entries_.find(rank);
        return it == entries_.end() ? nullptr : &it->second;
    }
    const std::map<RankId, Json>& all() const { return entries_; }

  private:
    std::map<RankId, Json> entries_;
};

}  // namespace ghost::plugin
