// SPDX-License-Identifier: BSD-3-Clause
// Memory that a tree shares with processes outside of it: a file without a name, or one in
// /dev/shm, which both have mapped. criu would give each of them a copy of its own; so it is told
// that such a file is external, what is in it becomes a file of the skeleton of one of them, and
// whoever makes the trees again gives all of them one file.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// Where a process of the tree has some of it mapped.
struct MappedPiece {
    pid_t pid = 0;
    uint64_t start = 0, offset = 0, bytes = 0;

    uint64_t end() const { return offset + bytes; }
};

struct SharedMemory {
    std::string id;      // which one it is of this machine's: "device-inode" in hexadecimal
    std::string key;     // criu's, as an external and of what takes its place
    std::string name;    // as /proc/PID/maps shows it
    bool named = false;  // others can find it by that name
    pid_t process = 0;   // of the tree that has it, by its number inside
    std::string program;
    std::vector<pid_t> others;  // that have it mapped too; none: this user may not see which
    Fd file;  // it itself, readable; none: only root can open it, it is read where it is mapped
    std::vector<MappedPiece> pieces;  // by their offset
    uint64_t size = 0;                // without `file`: as far as the tree has it mapped
    uint32_t mode = 0600;

    // Whether all that is in it can be saved.
    bool is_whole() const;
};

// All there is of a tree. Looks at every process of this node if there may be any. `known`: by
// their ids what others have too, for a user who may not look at them.
Result<std::vector<SharedMemory>> shared_memory_of(pid_t root,
                                                   const std::vector<std::string>& known = {});

// Name of the file of a skeleton that has what is in it.
std::string shared_memory_file(const std::string& id);
// What is in it, without what was never written; while nobody can write to it.
Result<std::string> shared_contents(const SharedMemory& memory);
// Puts that into an empty file of this size.
Status fill_shared(int fd, std::string_view contents);

}  // namespace ghost::core
