// SPDX-License-Identifier: BSD-3-Clause
// System calls made inside another process, which does not notice.
//
// One thread of it is stopped by PTRACE_INTERRUPT, makes the calls at a `syscall` instruction that
// is there already (in the vDSO), and goes on as if nothing had been: no memory of it is written,
// no signal gets lost, an interrupted system call is restarted by the kernel as after a debugger's
// stop (ptrace(2), "PTRACE_INTERRUPT"). The other threads run on.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <sys/types.h>
#include <sys/user.h>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// A thread that is held for calls. Only inside inject().
class HeldThread {
  public:
    virtual ~HeldThread() = default;
    // The kernel's answer: the result, or a negative errno.
    virtual Result<long> call(long number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0,
                              uint64_t d = 0, uint64_t e = 0, uint64_t f = 0) = 0;
    virtual pid_t pid() const = 0;
};

// Lets `work` make calls in a thread of the process, `tid` if that is not 0. busy: no such thread
// stops within limit_us (it sleeps in the kernel uninterruptibly); refused: it is traced by
// somebody else, or its seccomp filter cannot be suspended; unsupported: not a 64-bit x86 process.
// Whatever fails, also the death of either side, the process goes on; only the death of this one
// during the calls themselves (some 50 µs) is fatal for it. Blocks; any thread. The caller must not
// wait for unknown children meanwhile.
Status inject(pid_t pid, int64_t limit_us, const std::function<Status(HeldThread&)>& work,
              pid_t tid = 0);

// A thread's registers for a system call by the instruction at this place.
user_regs_struct calling(user_regs_struct registers, uint64_t instruction, long number,
                         const std::array<uint64_t, 6>& arguments);

// Where the kernel notes what it does with a traced thread whenever that goes on (rseq(2)); bytes
// 0: nowhere.
struct RestartableArea {
    uint64_t start = 0, bytes = 0;
};
RestartableArea restartable_area(pid_t tid);

// Which accesses to memory a userfaultfd stops until somebody has served them. With `programs` a
// system call that the kernel would have to wait in fails with EFAULT instead: enough for who never
// lets anybody wait. The kernel gives `all` to root, and to who has
// /dev/userfaultfd open: its user's group's, or lent by ghostd.
enum class Faults { programs, all };

// A userfaultfd of the process (its features not yet chosen), of which no descriptor stays in it.
// refused: none for these faults is to be had there.
Result<Fd> take_userfault(pid_t pid, int64_t limit_us, Faults faults);

}  // namespace ghost::core
