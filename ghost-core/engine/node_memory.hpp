// SPDX-License-Identifier: BSD-3-Clause
// How much memory a copy of a tree takes, and whether this node has it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <sys/types.h>

namespace ghost::core {

// Bytes of private memory, in RAM or swapped out, of all processes of a tree. 0: it is gone.
uint64_t memory_of_tree(pid_t root);
// Bytes that a control group (version 1 or 2) has left below its limit and those of all above it,
// up to that of `root` itself (a batch system limits a job, not its steps; a container sees its own
// as the root). What the system takes back first counts as left: contents of files, and memory that
// was offered to it. 2^64 - 1: no limit.
uint64_t memory_left(const std::filesystem::path& root, std::filesystem::path group);
// Bytes that can be used here without taking them from somebody: what the machine has available
// (proc(5), meminfo), and not more than the limits of our cgroups leave.
uint64_t memory_available();
// Less than half of the machine's memory is available: what is not needed now should be given back.
bool memory_is_scarce();

}  // namespace ghost::core
