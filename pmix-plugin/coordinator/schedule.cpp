// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/schedule.hpp"

#include <algorithm>

#include "base/log.hpp"

namespace ghost::plugin {

void Schedule::start() {
    if (interval_ <= 0 || timer_) return;
    last_ = now_();
    next_ = last_ + interval_;
    arm();
}

void Schedule::set_interval(int64_t interval_us) {
    if (interval_us == interval_ || interval_us <= 0) return;
    interval_ = interval_us;
    if (!timer_) return;
    stop();
    next_ = std::max(now_(), last_ + interval_);
    arm();
}

void Schedule::arm() {
    timer_ = loop_.after(std::max<int64_t>(1, next_ - now_()), [this] {
        timer_.reset();
        tick();
    });
}

// The grid stays: a snapshot that took long does not move those after it. One that is late by more
// than an interval (mpirun was stopped) does not make up for what was missed.
void Schedule::tick() {
    const int64_t now = now_();
    if (now < next_) return arm();  // libevent's timers may come some milliseconds early
    while (next_ <= now) {
        last_ = next_;
        next_ += interval_;
    }
    arm();
    if (!due_()) log::warning("a snapshot is due and the one before it is not over: left out");
}

void Schedule::stop() {
    if (timer_) loop_.cancel(*timer_);
    timer_.reset();
}

std::optional<int64_t> Schedule::next_in() const {
    if (!timer_) return std::nullopt;
    return std::max<int64_t>(0, next_ - now_());
}

}  // namespace ghost::plugin
