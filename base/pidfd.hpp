// SPDX-License-Identifier: BSD-3-Clause
// Processes by descriptor (pidfd_open(2)): a number that is used again cannot be taken for them.
// System calls only, so that a child of a process with threads may call these before it executes.
#pragma once

#include <cerrno>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include "base/fd.hpp"

namespace ghost {

// Closed on exec; none, and errno, if there is no such process.
inline Fd open_pidfd(pid_t pid) {
    return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

// False, and errno, if it was not sent; ESRCH if the process has been reaped.
inline bool signal_pidfd(int pidfd, int signal) {
    return ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0;
}

// Waits for the process's end, without a limit if `timeout_ms` is negative; false if it goes on.
inline bool await_pidfd(int pidfd, int timeout_ms) {
    pollfd ended{pidfd, POLLIN, 0};
    int rc = 0;
    while ((rc = ::poll(&ended, 1, timeout_ms)) < 0 && errno == EINTR) {
    }
    return rc > 0;
}

}  // namespace ghost
