// SPDX-License-Identifier: BSD-3-Clause
// The files a tree has mapped or open, as a ghost's host facts list them.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/json.hpp"

namespace ghost::core {

// What is to become of a ghost: it goes to another machine at once, where the very same files may
// be, whatever is written to them on its way; or it is kept, and needs them as they are now.
enum class Ghosts { move, are_kept };

// The entries of "files" (host.hpp) for these processes, each path once, ascending. A process that
// is gone gives none. Of one that moves, those that `told` has of the very same file are left out.
nlohmann::json file_facts(const std::vector<pid_t>& tree, Ghosts ghosts = Ghosts::are_kept,
                          const nlohmann::json& told = nlohmann::json::array());

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

// Tells files of one name on several machines apart, as far as the kernel can: the inode, and on
// file systems of one machine that machine and the device.
std::string file_identity(const std::string& path, uint64_t device, uint64_t inode);

// XXH3-64, 16 hex digits, of the first `size` bytes: of all up to 4 MiB, of 64 pieces of 4 KiB of
// more, the first and the last one among them. Empty: it cannot be read so far.
std::string contents_hash(int fd, uint64_t size);

// The GNU build id of an ELF file as hex digits; empty if it is none or has none.
std::string build_id(const std::string& path);

}  // namespace ghost::core
