// SPDX-License-Identifier: BSD-3-Clause
// Which system call a stopped thread was in when it was interrupted, as far as it can be told.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

namespace ghost::core {

// Answers of an interrupted system call that mean: make it again (include/linux/errno.h of Linux).
constexpr long restart_sys = -512, restart_no_intr = -513, restart_no_hand = -514,
               restart_block = -516;

// The number of the call that `registers` are at the end of; -1: none, or it cannot be told. One
// that has been interrupted before is in restart_syscall, and what that goes on with is known to
// the kernel only. It is one of four (poll, nanosleep, clock_nanosleep, futex), whose arguments
// are still there, and whose number is mostly seen in the code just before. Our criu does the same
// (packaging/criu/patches/0017-calls-go-on.patch).
long interrupted_call(pid_t tid, const user_regs_struct& registers);

}  // namespace ghost::core
