// SPDX-License-Identifier: BSD-3-Clause
// The runtime's own event thread, "the loop": everything of a daemon runs on it, and nothing
// blocks.
#pragma once

#include <cstdint>
#include <functional>

#include "base/clock.hpp"

namespace ghost::plugin {

using TimerId = uint64_t;
using WatchId = uint64_t;

class EventLoop {
  public:
    virtual ~EventLoop() = default;

    virtual int64_t now() const { return monotonic_us(); }
    virtual TimerId after(int64_t us, std::function<void()> action) = 0;  // once
    virtual void cancel(TimerId timer) = 0;
    virtual WatchId watch(int fd, std::function<void()> readable) = 0;  // level triggered
    virtual void unwatch(WatchId watch) = 0;
    // From raise_priority(true) to raise_priority(false), which nest, this daemon goes before ranks
    // that spin: others wait until it has done its part. Without the privilege nothing changes.
    virtual void raise_priority(bool /*on*/) {}
};

}  // namespace ghost::plugin
