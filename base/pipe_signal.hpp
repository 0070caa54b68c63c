// SPDX-License-Identifier: BSD-3-Clause
// SIGPIPE kept from whoever calls code that writes to pipes and sockets.
#pragma once

#include <csignal>
#include <ctime>

namespace ghost {

/// Blocks SIGPIPE in the calling thread for its lifetime, and takes back one that came meanwhile:
/// writing to what nobody reads is an error (EPIPE) then, not the process's end. What the process
/// does about SIGPIPE otherwise is not changed. Three system calls; the signal of a write is the
/// writing thread's own (signal(7)). To be destroyed by the thread that made it.
class PipeSignalBlock {
  public:
    PipeSignalBlock() {
        sigset_t pipe = pipe_only();
        pthread_sigmask(SIG_BLOCK, &pipe, &before_);
        was_blocked_ = sigismember(&before_, SIGPIPE) == 1;
        if (!was_blocked_) return;  // and so there was none to be kept
        sigset_t pending;
        sigpending(&pending);
        was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    }
    ~PipeSignalBlock() {
        const sigset_t pipe = pipe_only();
        const timespec now{};
        if (!was_pending_) sigtimedwait(&pipe, nullptr, &now);
        if (!was_blocked_) pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }
    PipeSignalBlock(const PipeSignalBlock&) = delete;
    PipeSignalBlock& operator=(const PipeSignalBlock&) = delete;

  private:
    static sigset_t pipe_only() {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGPIPE);
        return set;
    }

    sigset_t before_;
    bool was_blocked_ = false, was_pending_ = false;
};

}  // namespace ghost
