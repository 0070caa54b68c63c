// SPDX-License-Identifier: BSD-3-Clause
// What an ordinary user's criu cannot take out of the kernel, though root's can, and where it finds
// what root's is told (docs/GUIDE.md, "Who can use it"). For root all of this finds nothing.
#pragma once

#include <string>
#include <vector>

#include "ghost-core/criu/refusals.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {

// Of an inotify descriptor, "anon_inode:inotify". The kernel names only what it watches by number:
// that is looked for in the folders of the program, of its open files and of its arguments.
Refusal why_not_watched(const std::vector<Task>& tree, const Task& task, int number);

// All that the tree watches and that was found, for criu.
std::vector<std::string> watched_paths(pid_t root);

// One line each, as check_movable() has them: processes that let nobody look at them or have
// seccomp filters, another user's memfd, and mapped files that a user cannot open.
std::vector<std::string> only_for_root(const std::vector<Task>& tree, const std::string& who);

}  // namespace ghost::core
