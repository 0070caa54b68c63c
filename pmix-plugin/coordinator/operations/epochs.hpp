// SPDX-License-Identifier: BSD-3-Clause
// The numbers of the job's placements: one for every move, in the order in which they are reserved.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>

namespace ghost::plugin {

// Loop thread only; owned by the coordinator. Of a rank's placements a later one has the higher
// number: moves of one rank come one after the other. A number whose move came to nothing may be
// given again: nobody has ever been anywhere by it.
class Epochs {
  public:
    // The highest that was decided.
    uint32_t now() const { return now_; }
    // The job goes on from a snapshot.
    void set(uint32_t epoch) { now_ = epoch; }
    uint32_t reserve(uint64_t seq) {
        uint32_t highest = now_;
        for (const auto& [other, epoch] : reserved_) highest = std::max(highest, epoch);
        return reserved_[seq] = highest + 1;
    }
    void decide(uint64_t seq) {
        if (auto it = reserved_.find(seq); it != reserved_.end()) now_ = std::max(now_, it->second);
        reserved_.erase(seq);
    }
    void give_back(uint64_t seq) { reserved_.erase(seq); }

  private:
    uint32_t now_ = 0;
    std::map<uint64_t, uint32_t> reserved_;  // by operation
};

}  // namespace ghost::plugin
