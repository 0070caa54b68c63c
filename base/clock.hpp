// Time for deadlines and measurements; CLOCK_MONOTONIC, microseconds.
#pragma once

#include <cstdint>
#include <ctime>

namespace ghost {

inline int64_t monotonic_us() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t{t.tv_sec} * 1000000 + t.tv_nsec / 1000;
}

// Microseconds since 1970; only to compare what several nodes wrote down, never for deadlines.
inline int64_t realtime_us() {
    timespec t{};
    clock_gettime(CLOCK_REALTIME, &t);
    return int64_t{t.tv_sec} * 1000000 + t.tv_nsec / 1000;
}

}  // namespace ghost
