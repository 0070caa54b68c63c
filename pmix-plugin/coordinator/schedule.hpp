// SPDX-License-Identifier: BSD-3-Clause
// When the next snapshot is due: every interval, measured from begin to begin.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
class Schedule {
  public:
    // due: called when one is; says whether it was begun or waits for its turn. False: the one
    // before it is not over, this one is left out.
    Schedule(EventLoop& loop, int64_t interval_us, std::function<int64_t()> now,
             std::function<bool()> due)
        : loop_(loop), interval_(interval_us), now_(std::move(now)), due_(std::move(due)) {}
    ~Schedule() { stop(); }

    // The job runs: the first is due an interval from now. Without an interval nothing is.
    void start();
    void stop();
    // From now on another one, counted from when the last was due; not before it is begun.
    void set_interval(int64_t interval_us);
    // µs until the next; nothing if none is due ever.
    std::optional<int64_t> next_in() const;

  private:
    void arm();
    void tick();

    EventLoop& loop_;
    int64_t interval_;
    std::function<int64_t()> now_;
    std::function<bool()> due_;
    int64_t last_ = 0;  // when the last was due, or the start
    int64_t next_ = 0;
    std::optional<TimerId> timer_;
};

}  // namespace ghost::plugin
