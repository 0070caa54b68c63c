// SPDX-License-Identifier: BSD-3-Clause
// Finds out, before anything is frozen, what of a tree cannot move.
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/refusals.hpp"

namespace ghost::core {

// One line for every descriptor that cannot move: io_uring, userfaultfd, devices other than null,
// zero, full, random, urandom and tty, sockets whose other end is outside the tree, files below
// /proc of other processes, those whose name has been removed while they have one elsewhere; and
// for every working folder and mapping of the same kind. `who` opens each line ("rank 1"):
//   rank 1's process 1001 (ring): descriptor 37 socket tcp 10.77.0.1:5000 -> 10.77.0.9:80 cannot
//   move: its other end is outside; close it first
// `externals` are CRIU keys of descriptors that are given new ends at the target: "pipe:[inode]",
// "tty[rdev:dev]" (hex), "unix[inode]". An empty answer means: movable. `sockets`
// false: they are not looked at; a rank that runs has some that it closes before it is frozen. A
// process that has just been started has copies of what its parent has closed since, until it gets
// to close them or is another program: it is looked at again, for up to 300 ms.
// `name_of`, if given, names processes outside the tree ("rank 2"), which may use objects of its
// node too. Memory that others have mapped too is another matter (shared_memory.hpp).
// Error: the tree is gone or /proc cannot be read.
using NameOf = std::string (*)(pid_t pid);
Result<std::vector<std::string>> check_movable(pid_t root, const std::string& who,
                                               const std::vector<std::string>& externals,
                                               bool sockets = true, NameOf name_of = nullptr);

// One line of the same kind for every descriptor with an exclusive lock (flock(2), fcntl(2)): a
// tree that is made elsewhere while its original runs cannot have it.
Result<std::vector<std::string>> exclusive_locks(pid_t root, const std::string& who);

// CAP_SYS_RESOURCE: limits above one's own hard ones can be given (setrlimit(2)).
bool may_raise_limits();

// Why an import on this node could not give a descriptor this number.
Refusal why_no_descriptor(int number);

}  // namespace ghost::core
