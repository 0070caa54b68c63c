// SPDX-License-Identifier: BSD-3-Clause
// Signals of the parent of a tree: all are blocked and read from a descriptor; the program gets the
// state it would have had without us.
#pragma once

#include <csignal>
#include <cstdint>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// What a program started now would inherit.
struct SignalState {
    uint64_t mask = 0;  // bit 0 is signal 1
    bool chld_ignored = false;
    static SignalState now();
};

// Taken once at start, by the main thread before any other exists.
class Signals {
  public:
    static Result<Signals> block();

    int fd() const { return fd_.get(); }
    // The next signal that has come; 0: none. SIGCHLD and SIGPIPE are taken and not reported.
    int next() const;
    SignalState original() const;  // of before block()
    // Puts back what was before block(), for becoming the program or a plain child.
    void restore() const;

  private:
    Fd fd_;
    sigset_t original_{};
    bool chld_ignored_ = false;
};

// Ends this process the way `status` (of wait(2)) says: same code, or same signal without a core.
[[noreturn]] void end_like(int status);

}  // namespace ghost::core
