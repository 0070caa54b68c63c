// SPDX-License-Identifier: BSD-3-Clause
// Which system call a stopped thread was in when it was interrupted, as far as it can be told, and
// a call that waits for a duration, carried elsewhere.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <sys/types.h>
#include <sys/user.h>

#include "base/result.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/waits.hpp"

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

// What is left of the duration for which the call waits that the stopped thread of the process is
// interrupted in, or of the limit of its socket, ns; 0: not known, or it waits for none, or for one
// that the kernel itself makes shorter (select, ppoll).
int64_t left_of_duration(const Waits& waits, pid_t pid, pid_t tid,
                         const user_regs_struct& registers);

// What take_up_wait() for such a thread needs of its memory.
PageRuns memory_of_wait(pid_t tid, const user_regs_struct& registers);

// For a thread that is made of a ghost, and about to make a call that waits for a duration: it is
// brought to where it was, interrupted in that call by a stop with `left_ns` to go, so that the
// kernel goes on with it for so long (restart_syscall(2)). The thread is stopped, by this one as
// its tracer with PTRACE_O_TRACESYSGOOD; `go` continues it by a request of ptrace(2) until it stops
// for us again, and says how. It is left so that it waits for the whole duration if this fails.
Status take_up_wait(pid_t tid, int64_t left_ns, const std::function<Result<int>(int)>& go);

}  // namespace ghost::core
