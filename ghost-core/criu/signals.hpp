// SPDX-License-Identifier: BSD-3-Clause
// Signals of the parent of a tree: all are blocked and read from a descriptor; the program gets the
// state it would have had without us.
#pragma once

#include <csignal>
#include <optional>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// Taken once at start, by the main thread before any other exists.
class Signals {
  public:
    static Result<Signals> block();

    int fd() const { return fd_.get(); }
    // The next signal that has come; 0: none. SIGCHLD and SIGPIPE are taken and not reported.
    int next() const;
    // Mask as 64 bits, bit 0 is signal 1.
    uint64_t original_mask() const;
    bool chld_ignored() const { return chld_ignored_; }
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
