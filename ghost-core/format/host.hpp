// SPDX-License-Identifier: BSD-3-Clause
// Facts about a machine, and about the files a tree uses on it, that decide whether a ghost made
// on it can live on another one.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/files.hpp"

namespace ghost::core {

uint32_t this_machine();    // e_machine of this program, elf(5)
uint32_t this_page_size();  // bytes

// JSON: {"arch", "kernel" (release), "libc", "page_size", "cpu", "flags": [CPU features a program
// may have found], "files": [as below]}. `tree` are the processes (as numbered here) whose files
// are listed; without any, there is no "files".
//   {"path", "use": "mapped", "mode", "size", "build_id" (ELF) | "hash" and "mtime"}
//   {"path", "use": "open", "mode", "size", "hash", "mtime"}   opened for reading only: may grow
//   {"path", "use": "written", "mode"}   mapped shared or opened for writing: has to exist
// Of a ghost that moves each has "file" too, and written ones all the rest: what has the same
// "file" there is the same, whatever has been written to it meanwhile (file_identity()).
// Costs about a millisecond for a usual process; call it before a freeze. Files that have no path
// any more and those of the kernel (proc, sys, dev) are not listed.
std::string host_facts(const std::vector<pid_t>& tree = {}, Ghosts ghosts = Ghosts::are_kept);
// The same with these files.
std::string host_facts(const SeenFiles& files);

// One line for everything that is missing or different here, for a ghost with these facts:
// processor features, an older kernel, another architecture or page size, files. Empty: it fits.
// corrupt: these are no facts.
Result<std::vector<std::string>> host_differences(const std::string& facts_json);
// The same, each with the file that it is about; empty: none.
Result<std::vector<FileDifference>> named_differences(const std::string& facts_json);

// The files that are listed there.
std::set<std::string> paths_in(const std::string& facts_json);

// The same as one error: unsupported, with all that is missing. Files of `changing` only have to be
// there, whatever their use, those of `made` will be.
Status check_host(const std::string& facts_json, const std::set<std::string>& changing = {},
                  const std::set<std::string>& made = {});

}  // namespace ghost::core
