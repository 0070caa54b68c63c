// SPDX-License-Identifier: BSD-3-Clause
// The files a tree has mapped or open, as a ghost's host facts list them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/json.hpp"

namespace ghost::core {

// What is to become of a ghost: it goes to another machine at once, where the very same files may
// be, whatever is written to them on its way; or it is kept, and needs them as they are now.
enum class Ghosts { move, are_kept };

// How a file is used; of several ways the one that comes last here.
enum class FileUse { open, mapped, written };
using UsedFiles = std::map<std::string, FileUse>;  // by path

// One more use of a file, if such files can be on another machine.
void add_use(UsedFiles& files, const std::string& path, FileUse use);
// What these processes have mapped or open now. A process that is gone has nothing.
UsedFiles used_files(const std::vector<pid_t>& tree);

// Files as they were found: who looks again reads only what has changed since.
struct SeenFile {
    FileUse use = FileUse::open;
    uint32_t mode = 0;
    uint64_t device = 0, inode = 0;
    int64_t size = 0, modified_ns = 0, changed_ns = 0;
    nlohmann::json entry;
};
using SeenFiles = std::map<std::string, SeenFile>;  // by path

// What is found of files now; what `before` has of one that has not changed since is true still. Of
// a ghost that moves a file is the same whatever has been written to it.
// `until_ns`: as of then (CLOCK_REALTIME): of one that has changed, or gone, after that, what
// `before` has is true too.
SeenFiles see_files(const UsedFiles& files, Ghosts ghosts, const SeenFiles& before = {},
                    int64_t until_ns = INT64_MAX);

// The entries of "files" (host.hpp), each path once, ascending.
nlohmann::json file_facts(const SeenFiles& files);
// The same for these processes as they are now.
nlohmann::json file_facts(const std::vector<pid_t>& tree, Ghosts ghosts = Ghosts::are_kept);

// Whether who was told the one entry knows of the file that another one is about: it is the same,
// or of the very same file of one that moves.
bool tells_of(const nlohmann::json& told, const nlohmann::json& entry);

struct FileDifference {
    std::string path;  // empty: of no file
    std::string line;  // for people
};
// For each entry that is missing or different here; entries that make no sense are named too.
std::vector<FileDifference> file_differences(const nlohmann::json& files);

// Whether a path leads to what the kernel makes itself: below /proc or /sys, where nothing is kept.
bool is_of_kernel(const std::string& path);

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
// Whether that sees only a part, and the time of the last write tells more: its file system is this
// machine's own. (Others give the time when the write reaches a server.)
bool tells_by_time(const std::string& path, uint64_t size);

// The GNU build id of an ELF file as hex digits; empty if it is none or has none.
std::string build_id(const std::string& path);

}  // namespace ghost::core
