// SPDX-License-Identifier: BSD-3-Clause
// Files of a tree by names that are not the same where it is made anew: those below /proc/PID, and
// those whose own name has been removed.
#pragma once

#include <string>
#include <sys/stat.h>
#include <vector>

#include "ghost-core/criu/refusals.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {

// Why a file that a process has open or mapped cannot be opened anew, as far as its name says.
// `link` below /proc/PID leads to it, `shown` is what that shows, `info` stat(2) of it.
Refusal why_not_by_name(const std::vector<Task>& tree, const std::string& link,
                        const std::string& shown, const struct stat& info);

// Why it is no file at all, although it looks like one.
Refusal why_no_file(const std::string& link);

// The same for what is below /proc, by its path alone.
Refusal why_not_below_proc(const std::vector<Task>& tree, const std::string& path);

// "/proc/PID/…" of a process of the tree as criu is told to open it: with the process's own number,
// marked, wherever the path has its number here (packaging/criu, ghost-names.c). Other paths stay,
// and those of a tree with a /proc of its own.
std::string inner_path(const std::vector<Task>& tree, const std::string& path);

}  // namespace ghost::core
