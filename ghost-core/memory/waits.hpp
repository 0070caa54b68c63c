// SPDX-License-Identifier: BSD-3-Clause
// How long threads still wait that are about to be stopped, and calls that a stop must not end.
//
// A stop interrupts every call that sleeps. Most of them the kernel goes on with, but it tells
// nobody how much of their time is left; some it ends with EINTR also where no handler runs
// (signal(7), "Interruption of system calls and library functions by stop signals"), and has
// forgotten their time. So before the stop it is read where the kernel has it: the timer that wakes
// a sleeping thread lies on that thread's stack in the kernel, in a structure that ends with the
// thread itself (struct hrtimer_sleeper; struct process_timer for a socket), and the kernel's
// iterator over tasks (BPF) copies the part of the stack that is in use. Where it may not be asked
// nothing is known.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <sys/types.h>
#include <sys/user.h>

namespace ghost::core {

class Waits {
  public:
    // What takes long (20 ms), once in a process. False: nothing will be known here.
    static bool prepare();

    // Threads of a process that have stopped as by SIGSTOP, and their innermost numbers; some or
    // all may be missing.
    static std::map<pid_t, int> stopped_threads(pid_t pid);

    // At the threads of a process that runs.
    void look(pid_t pid);
    // When all of them have stopped: those that did anything else meanwhile are forgotten.
    void confirm();
    // After that. Of a thread for which this is true nothing can be needed but what stays in it:
    // criu runs no code in it (packaging/criu, ghost-threads.c: 64 bits, the credentials and flags
    // of the main thread), and its call goes on by itself, for any time.
    bool is_left_alone(pid_t tid) const { return left_alone_.contains(tid); }
    // One that has run again since.
    void forget(pid_t pid);

    // The rest of the wait that a thread was in, from now on; at least 0. Nothing if it is not
    // known: it did not sleep, or not for a time.
    std::optional<int64_t> left_ns(pid_t tid) const;
    // The same of one that go_on() lets make a call on a socket with a limit again.
    std::optional<int64_t> left_on_socket_ns(pid_t pid, pid_t tid,
                                             const user_regs_struct& registers) const;

    // A stopped thread of the process that this one traces. If its call is one that the kernel has
    // ended for the stop, it makes it again when the thread goes on, for the time that is left, or
    // ends it with EINTR if a handler runs first. One whose time is not known stays ended; on a
    // socket it begins again, for all of its time if it is not told how much is left (begin_again).
    void go_on(pid_t pid, pid_t tid) const;

  private:
    struct Sleep {
        pid_t pid = 0;
        uint64_t stops = 0;  // how often the thread has slept
        std::optional<int64_t> end_ns, socket_end_ns;
        bool was_stopped = false;
        bool woken = false;
    };
    const Sleep* sleep_of(pid_t tid) const;

    std::set<pid_t> processes_;
    std::map<pid_t, Sleep> sleeps_;  // of the threads that were asleep, or stopped
    std::set<pid_t> left_alone_;
    bool known_ = false;  // all processes could be looked at
};

}  // namespace ghost::core
