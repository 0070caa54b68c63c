// SPDX-License-Identifier: BSD-3-Clause
// Spreads a ghost over several resources (disks, connections), all used at once: MiB 0 goes to
// the first, 1 to the second, and so on. A set that is not complete, or mixed, is refused.
#pragma once

#include <memory>
#include <vector>

#include "ghost-core/resource/units.hpp"

namespace ghost::core {

class StripeResource : public UnitResource {
  public:
    // 1 to 64 members, for reading in the same order as for writing.
    StripeResource(std::vector<std::unique_ptr<Resource>> members, Use use);
    ~StripeResource() override;
    // Whether a resource that begins with these 8 bytes is a member of a set.
    static bool is_mine(const char* start);
    static constexpr size_t member_limit = 64;

    ResourceClass class_id() const override { return ResourceClass::stripe; }
    void interrupt() override;

  private:
    Status open() override;
    void work(Slot& slot) override;
    Status emit(Slot&) override { return {}; }
    Result<bool> load(Slot& slot) override;
    Status close() override;
    Status write_unit(Slot& slot);
    Status read_unit(Slot& slot);

    std::vector<std::unique_ptr<Resource>> members_;
    std::vector<char> over_;  // read: the member has said that it has no more
};

}  // namespace ghost::core
