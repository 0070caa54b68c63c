// SPDX-License-Identifier: BSD-3-Clause
// Locks that the processes of a stopped tree have on files (flock(2), fcntl(2)): criu writes down
// which, and they are taken, lowered and dropped here, by calls made in the processes themselves.
// None is waited for where somebody else has the file: criu would wait for ever.
#pragma once

#include <cstdint>
#include <functional>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/criu_images.hpp"

namespace ghost::core {

// Those of a descriptor of a process, stopped or not, by proc_pid_fdinfo(5); `process` is not set.
std::vector<FileLock> locks_of(pid_t pid, int descriptor);

bool has_exclusive(const std::vector<FileLock>& locks);

// One thread. The tree is stopped, and nobody traces it.
class TreeLocks {
  public:
    static constexpr const char* not_seen =
        "the exclusive lock that is held of it is not seen here: it is another file of that name, "
        "or its file system shares no locks";

    TreeLocks(pid_t root, std::vector<FileLock> locks) : root_(root), locks_(std::move(locks)) {}

    // All of them as the tree had them. refused: somebody else has the file locked, and has not
    // given it back within limit_us.
    Status take(int64_t limit_us);
    // Exclusive ones become shared ones, without a moment between; a file that is open for writing
    // only can have none of those.
    Status lower();
    // The exclusive ones are given up, whatever they are now.
    Status drop();
    // Where another tree has these locks: whether its exclusive ones keep this one from the files,
    // as they must if both are to mean the same locks. Files without a name are each tree's own.
    // refused: one does not.
    Status are_seen();
    // Shared locks where exclusive ones are wanted too, as far as such can be had. refused.
    Status share();

  private:
    class Thread;
    // Of the kernel's answers to a call for each lock.
    Status each(
        const std::function<Status(const Thread& thread, const FileLock& lock)>& call) const;

    pid_t root_;
    std::vector<FileLock> locks_;
};

}  // namespace ghost::core
