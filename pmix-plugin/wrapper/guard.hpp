// SPDX-License-Identifier: BSD-3-Clause
// A small process beside the wrapper for what the wrapper cannot do itself: act after it was killed
// or stopped.
//
// The runtime signals the wrapper's process group, and some of that cannot be caught:
// - SIGSTOP (mpirun's translation of SIGTSTP): a sentinel process in the wrapper's group is stopped
//   with it, the guard, which is its parent in a group of its own, hears of that and stops the
//   program. SIGCONT reaches the program by way of the wrapper.
// - SIGKILL: the guard sees its connection end. If it is armed (the job is being ended, or a
//   restored tree has not been let go) it kills the tree; otherwise a new wrapper will adopt it,
//   and the guard stays until the tree has ended or must end because its daemon has.
//   It also removes the work folder.
#pragma once

#include <string>
#include <sys/types.h>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::plugin {

// Owned by the wrapper's main thread. Every call but start() and stop() is one packet sent.
class Guard {
  public:
    Guard() = default;
    Guard(Guard&&) = default;
    Guard& operator=(Guard&&) = default;
    ~Guard() { stop(); }

    // Forks; call it while there is one thread, with every signal blocked.
    static Result<Guard> start();

    void watch(pid_t root);                // the tree's init; 0: none any more
    void arm(bool on);                     // whether our sudden death kills the tree
    void folder(const std::string& path);  // to remove when we die; "": none
    // Ends and reaps it; nothing is killed.
    void stop();

  private:
    void tell(char what, int64_t number, const std::string& text) const;

    Fd fd_;
    pid_t pid_ = 0;
};

}  // namespace ghost::plugin
