// SPDX-License-Identifier: BSD-3-Clause
// A small process beside the parent of a tree, which acts when that one was killed or stopped.
//
// - SIGKILL: the guard sees its connection end and does its duty by the tree; it removes criu's
// work
//   folder too.
// - SIGSTOP, of which no process hears: a sentinel process in the parent's group is stopped with
// it;
//   the guard, which is the sentinel's parent in a group of its own, hears of that and stops the
//   program. SIGCONT is the parent's to pass on.
#pragma once

#include <string>
#include <sys/types.h>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// Owned by one thread of the parent. Every call but start() and stop() is one packet sent.
class Guard {
  public:
    // What the parent's sudden death means for the tree.
    enum class Duty : uint8_t {
        leave,   // somebody adopts it; without the parent's own parent nobody does, and it is ended
        resume,  // it goes on
        kill,    // it is ended
    };
    struct Config {
        Duty duty = Duty::leave;
        pid_t root = 0;           // the tree's first process; 0: none
        std::string folder = {};  // to remove; empty: none
        bool stops = false;       // the program is stopped with the parent
    };

    Guard() = default;
    Guard(Guard&&) = default;
    Guard& operator=(Guard&& other) noexcept;
    ~Guard() { stop(); }

    // Forks. No thread of this process may hold a lock that the child needs: call it early.
    static Result<Guard> start(const Config& config);

    void watch(pid_t root);
    void set_duty(Duty duty);
    void folder(const std::string& path);
    // All is well: it ends without doing anything, and is reaped.
    void stop();

  private:
    void tell(char what, int64_t number, const std::string& text) const;

    Fd fd_;
    pid_t pid_ = 0;
};

}  // namespace ghost::core
