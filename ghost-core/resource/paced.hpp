// SPDX-License-Identifier: BSD-3-Clause
// A resource whose bytes go to another one no faster than wanted, and that can be broken off.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

// For writing. Not a class of its own: it says that it is what it holds.
class PacedResource : public Resource {
  public:
    // `rate`: bytes per second, measured from the first write on; 0: as fast as it goes. `progress`
    // is told the bytes written so far, on the writing thread; may be empty.
    PacedResource(std::unique_ptr<Resource> inner, uint64_t rate,
                  std::function<void(uint64_t bytes)> progress = {});

    ResourceClass class_id() const override { return inner_->class_id(); }
    Status init() override { return inner_->init(); }
    Status write(const void* data, size_t size) override;
    Result<size_t> read(void* data, size_t size) override { return inner_->read(data, size); }
    // refused after interrupt(), like write(): then nothing is left of the ghost.
    Status finalize() override;
    void interrupt() override;

  private:
    Status wait_for_turn(size_t size);

    std::unique_ptr<Resource> inner_;
    const uint64_t rate_;
    const std::function<void(uint64_t bytes)> progress_;
    std::mutex mutex_;  // of interrupted_
    std::condition_variable changed_;
    bool interrupted_ = false;
    int64_t begin_us_ = 0;
    uint64_t bytes_ = 0;
};

}  // namespace ghost::core
