// SPDX-License-Identifier: BSD-3-Clause
// Time for deadlines and measurements; CLOCK_MONOTONIC.
#pragma once

#include <cstdint>
#include <ctime>

namespace ghost {

inline int64_t monotonic_ns() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

inline int64_t monotonic_us() {
    return monotonic_ns() / 1000;
}

// Microseconds since 1970; only to compare what several nodes wrote down, never for deadlines.
inline int64_t realtime_us() {
    timespec t{};
    clock_gettime(CLOCK_REALTIME, &t);
    return int64_t{t.tv_sec} * 1000000 + t.tv_nsec / 1000;
}

// Tells what comes all the time from what comes once in a while, for a few nanoseconds.
class LastTime {
  public:
    // Whether the last call was 6 to 33 us ago or more (and the first one is long ago, too).
    bool was_long_ago() {
        const uint64_t now = ticks(), before = at_;
        at_ = now;
        return now - before > long_ticks;
    }

  private:
    static constexpr uint64_t long_ticks = 1 << 15;
    // Of the processor where it counts them at a steady 1 to 5 GHz, else nanoseconds.
    static uint64_t ticks() {
#if defined(__x86_64__)
        return __builtin_ia32_rdtsc();
#else
        timespec t{};
        clock_gettime(CLOCK_MONOTONIC, &t);
        return static_cast<uint64_t>(t.tv_sec) * 1000000000 + static_cast<uint64_t>(t.tv_nsec);
#endif
    }

    uint64_t at_ = 0;
};

}  // namespace ghost
