// SPDX-License-Identifier: BSD-3-Clause
// What a tree needs where it goes, asked at the source, and what of it a target lacks: everything
// in one report, before anything is frozen. Both halves only look; any thread.
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "base/result.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/format/files.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

// What the tree needs besides the facts of its host, as plain data that can travel:
//   memory   bytes of memory it has in use
//   folders  working, root and open folders, but for removed ones, which are made again
//   pipes    named pipes that are open
//   descriptors  the highest number of one
//   removed  {folder: bytes that files without a name any more take in it}
//   limits   {name: the highest hard limit a process of it has}, names as in /proc/PID/limits
//   spaces   name spaces it has of its own ["pid", "ipc"]
// not_found: the tree is gone.
Result<Json> needs_of(pid_t root);

// host_facts() of a tree (ghost-core/format/host.hpp): processor, kernel, files. Every ghost has
// them in its head; who asks before there is a ghost gets them here. `told`: as there.
Result<std::string> facts_of(pid_t root, Ghosts ghosts, const std::string& told = {});

// Takes out of facts, and of "needs" in a ghost's metadata, what the tree had closed or removed by
// the time it was frozen, as its skeleton shows: both were gathered while it ran, and a restart
// looks for all that they name.
void drop_released(const SkeletonFiles& skeleton, std::string& facts, Json& metadata);

struct Shortcoming {
    std::string what;    // "memory", "hard limit of open files"; a whole line if needed is empty
    std::string needed;  // "512.0 MiB"
    std::string found;   // "120.5 MiB free"
};

// All that this machine lacks. A ghost that has been tried against its needs can still be refused
// for what nobody can know ahead: memory taken by others meanwhile.
std::vector<Shortcoming> check_target(const Json& needs, const std::string& facts);

// The part of it that several trees which come here together do not share: folders, descriptors,
// room for removed files, limits.
std::vector<Shortcoming> check_needs(const Json& needs);

// The same as a message: "memory: 512.0 MiB needed, 120.5 MiB free; file …".
std::string describe(const std::vector<Shortcoming>& all);

// The same over the connection that a ghost is to take, ahead of it: the source asks, while the
// tree runs, and the target answers. Both give refused with all that the target lacks, and what
// comes of the connection. The source may ask again: what the tree had open may be closed by then.
// The target answers until nothing is lacking or the source hangs up.
Status ask_target(Resource& target, const Json& needs, const std::string& facts);
Status answer_source(Resource& source);

}  // namespace ghost::core
