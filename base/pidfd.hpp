// SPDX-License-Identifier: BSD-3-Clause
// Processes by descriptor (pidfd_open(2)): a number that is used again cannot be taken for them.
// System calls only, so that a child of a process with threads may call these before it executes.
#pragma once

#include <sys/syscall.h>
#include <sys/types.h>

#include "base/fd.hpp"
#include "base/await.hpp"

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
    return await_readable(pidfd, timeout_ms);
}

}  // namespace ghost
