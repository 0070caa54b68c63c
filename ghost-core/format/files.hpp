// SPDX-License-Identifier: BSD-3-Clause
// The files a tree has mapped or open, as a ghost's host facts list them.
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include "base/json.hpp"

namespace ghost::core {

// The entries of "files" (host.hpp) for these processes, each path once, ascending. A process that
// is gone gives none.
nlohmann::json file_facts(const std::vector<pid_t>& tree);

// One line for each entry that is missing or different here; entries that make no sense are named
// too.
std::vector<std::string> file_differences(const nlohmann::json& files);

// Whether a path leads to what the kernel makes itself: below /proc or /sys, where nothing is kept.
bool is_of_kernel(const std::string& path);

// The link to a file that a process has mapped, by its line of /proc/PID/maps.
std::string mapping_link(pid_t pid, const std::string& line);

// The name of a file that is open or mapped, by its link below /proc/PID/fd or /proc/PID/map_files
// and what that shows: it itself, or, where that name has been removed and the file has another one
// in the same folder, that one. Empty: it has no name, or one that cannot be found.
std::string name_of(const std::string& link, const std::string& shown);

// The GNU build id of an ELF file as hex digits; empty if it is none or has none.
std::string build_id(const std::string& path);

}  // namespace ghost::core
