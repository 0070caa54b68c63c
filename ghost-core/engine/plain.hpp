// SPDX-License-Identifier: BSD-3-Clause
// A process outside of MPI, and its tree: found by a pid that a user sees, judged, described.
//
// The tree is what `ghost run` has made, a PID name space under ghost-init, or else the process and
// its descendants as they are. Its standard input, output and error may lead out of it: the
// importer's take their places. Everything else has to stay inside. Needs root; any thread.
#pragma once

#include <array>
#include <string>
#include <sys/types.h>
#include <vector>

#include "ghost-core/engine/migration.hpp"

namespace ghost::core {

struct PlainTree {
    pid_t root = 0;      // the init of its PID name space; or the process itself, if it has none
    pid_t program = 0;   // what the user started, as numbered here
    pid_t inner = 0;     // the same as it knows itself
    bool nested = true;  // has a PID name space of its own
};

// The tree that `pid` means: any process of it, or the `ghost run` that is its parent. not_found;
// refused with a reason if it can never be taken (a container, a kernel thread, this process).
Result<PlainTree> find_plain(pid_t pid);

// What a standard descriptor of the tree is; a key only if it leads out of the tree.
std::array<StdioEnd, 3> stdio_of(const PlainTree& tree);
// The same of any descriptor of a process, as if it led out.
StdioEnd stdio_end(pid_t pid, int number);

// One line for everything that keeps the tree from being exported, before anything is frozen:
// descriptors (check_movable), pipes to the outside other than stdio, foreign name spaces.
Result<std::vector<std::string>> why_not_exportable(const PlainTree& tree);

// Whether what descriptor `number` of `pid` was opened on is mounted for the process `viewer`.
bool is_mounted_for(pid_t viewer, pid_t pid, int number);

// An export of the tree: externals, facts, and GhostMetadata.
// Its files are looked at for such a ghost: one that is kept tells a file from others otherwise.
Result<ExportRequest> plain_export(const PlainTree& tree, const CriuSettings& criu, Ghosts ghosts);

// SIGKILL to every process of the tree; does not reap.
void end_plain(const PlainTree& tree);

// Whether the process a ghost was made of still runs on this node; its pid, or 0.
pid_t still_running(const OriginalProcess& original);

// Every stdio descriptor of the ghost that leads outside; several may have one key.
std::vector<std::pair<int, StdioEnd>> outside_stdio(const PlainProcess& process);

// The variable by which a clone knows that it is one (set to "0" by `ghost run`): it reads "1" in
// every process of a tree that mark_clone() was called for, by getenv(3) at once. A tree without it
// is left as it is. The tree is frozen.
inline constexpr const char* clone_variable = "GHOST_CLONE";
void mark_clone(pid_t root);

}  // namespace ghost::core
