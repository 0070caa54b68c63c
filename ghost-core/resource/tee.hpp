// SPDX-License-Identifier: BSD-3-Clause
// Writes a ghost to two resources at the same time; reads it from the first that can be opened.
#pragma once

#include <memory>
#include <optional>

#include "ghost-core/resource/resource.hpp"
#include "ghost-core/resource/slot_threads.hpp"

namespace ghost::core {

class TeeResource : public Resource {
  public:
    TeeResource(std::unique_ptr<Resource> first, std::unique_ptr<Resource> second, Use use)
        : first_(std::move(first)), second_(std::move(second)), use_(use) {}

    ResourceClass class_id() const override { return ResourceClass::tee; }
    // A failure of either is one of the whole (writing); of both (reading).
    Status init() override;
    Status write(const void* data, size_t size) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override;
    void interrupt() override;

  private:
    // Does the same to both, to the second in a thread of its own.
    Status both(const std::function<Status(Resource&)>& action);

    std::unique_ptr<Resource> first_, second_;
    Use use_;
    bool from_second_ = false;
    std::function<Status(Resource&)> action_;
    std::optional<Error> failure_;
    std::unique_ptr<SlotThreads> worker_;  // last: its thread uses what is above
};

}  // namespace ghost::core
