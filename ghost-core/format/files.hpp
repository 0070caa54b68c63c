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

// The GNU build id of an ELF file as hex digits; empty if it is none or has none.
std::string build_id(const std::string& path);

}  // namespace ghost::core
