// SPDX-License-Identifier: BSD-3-Clause
// Sees to it that nobody reads zeros where pages are missing.
//
// A userfaultfd that is closed, also by the death of its owner, leaves its processes alone with
// their memory: what is missing is zero from then on (userfaultfd(2)). So a process of its own
// holds them as well until all pages are there. If its maker ends before, it ends the tree, and
// only then lets go.
#pragma once

#include <sys/types.h>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// Owned by one thread, which is the parent of the keeping process.
class FaultKeeper {
  public:
    // For the tree whose init is `root`. Before it runs.
    static Result<FaultKeeper> start(pid_t root);
    FaultKeeper(FaultKeeper&& other) noexcept;
    FaultKeeper& operator=(FaultKeeper&&) = delete;
    // All is there, or the tree has been ended.
    ~FaultKeeper();

    // Holds this userfaultfd too. Any thread. An error leaves it unheld.
    Status keep(int userfault) const;
    // All is there: what is missing now is zero, as soon as nobody holds them any more. Any thread.
    void let_go() const;

  private:
    FaultKeeper(pid_t pid, Fd line) : pid_(pid), line_(std::move(line)) {}
    pid_t pid_;
    Fd line_;
};

}  // namespace ghost::core
