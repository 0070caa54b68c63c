// SPDX-License-Identifier: BSD-3-Clause
// To wait for one descriptor, or for a few without a loop (base/loop.hpp). System calls only.
#pragma once

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <poll.h>
#include <span>

#include "base/clock.hpp"

namespace ghost {

// True once one of `events` (poll(2)), an end or an error is there; false after that time, and if
// the kernel cannot wait. Negative: without a limit. Signals do not end it.
inline bool await_event(int fd, short events, int timeout_ms) {
    pollfd one{fd, events, 0};
    const int64_t limit = timeout_ms < 0 ? 0 : monotonic_us() + int64_t{timeout_ms} * 1000;
    for (;;) {
        const int rc = ::poll(&one, 1, timeout_ms);
        if (rc >= 0 || errno != EINTR) return rc > 0;
        if (timeout_ms < 0) continue;
        timeout_ms = static_cast<int>(std::max<int64_t>((limit - monotonic_us() + 999) / 1000, 0));
    }
}

inline bool await_readable(int fd, int timeout_ms) {
    return await_event(fd, POLLIN, timeout_ms);
}
inline bool await_writable(int fd, int timeout_ms) {
    return await_event(fd, POLLOUT, timeout_ms);
}

// Until a time of the monotonic clock; INT64_MAX: without a limit.
inline bool await_readable_until(int fd, int64_t deadline_us) {
    const int64_t left_ms = std::max<int64_t>((deadline_us - monotonic_us() + 999) / 1000, 0);
    return await_readable(fd, left_ms > INT_MAX ? -1 : static_cast<int>(left_ms));
}

// Any of them, which say what for; what has come is in them. False as above.
inline bool await_any_until(std::span<pollfd> all, int64_t deadline_us) {
    for (;;) {
        const int64_t left_ms = std::max<int64_t>((deadline_us - monotonic_us() + 999) / 1000, 0);
        const int rc =
            ::poll(all.data(), all.size(), left_ms > INT_MAX ? -1 : static_cast<int>(left_ms));
        if (rc >= 0 || errno != EINTR) return rc > 0;
    }
}

}  // namespace ghost
