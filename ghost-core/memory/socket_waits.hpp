// SPDX-License-Identifier: BSD-3-Clause
// Calls on sockets with a limit (SO_RCVTIMEO, SO_SNDTIMEO), which a stop ends with EINTR.
//
// Such a call has no time among its arguments: it takes the socket's when it begins. So for what is
// left of it the socket's limit is that for the moment in which the call begins again, and the full
// one as soon as the thread sleeps in it. A call that another thread makes on the socket in these
// microseconds would end early, so others of its process are held meanwhile where that is possible.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <sys/types.h>
#include <sys/user.h>

#include "base/fd.hpp"

namespace ghost::core {

// Whether a system call is one of those that may be made on a socket and wait there.
bool may_wait_on_socket(long call);

class SocketLimit {
  public:
    // Of the socket that a process makes the call on, as its arguments say; nothing if it is none,
    // or has no limit for such calls.
    static std::optional<SocketLimit> of(pid_t pid, long call, const user_regs_struct& arguments);

    int64_t ns() const;
    // At least a microsecond.
    bool shorten(int64_t ns) const;
    bool give_back() const;

  private:
    SocketLimit() = default;
    Fd socket_;
    int option_ = 0;
    int64_t full_us_ = 0;
};

// Of threads in such a call: when it ends (CLOCK_MONOTONIC, ns), by number.
using SocketWaits = std::map<pid_t, int64_t>;

// Lets a thread of the process go on with its call, until `end_ns`. It is seized by this one as its
// tracer (PTRACE_O_TRACESYSGOOD), stopped or about to be, and is to make such a call next. Then it
// sleeps in that, or is in any stop of ptrace: it is to be let go by the end of the calling thread,
// at which no call ends. If it does something else first, or that cannot be done, the call waits
// for the socket's full limit.
void begin_again(pid_t pid, pid_t tid, int64_t end_ns);

}  // namespace ghost::core
