// SPDX-License-Identifier: BSD-3-Clause
// What a tree needs where it goes, asked at the source, and what of it a target lacks: everything
// in one report, before anything is frozen. Both halves only look; any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

struct Shortcoming {
    std::string what;    // "memory", "hard limit of open files"; a whole line if needed is empty
    std::string needed;  // "512.0 MiB"
    std::string found;   // "120.5 MiB free"
    std::string path;    // of a file, folder or pipe that is looked for by its name
};

// All that this machine lacks. A ghost that has been tried against its needs can still be refused
// for what nobody can know ahead: memory taken by others meanwhile.
std::vector<Shortcoming> check_target(const std::optional<Needs>& needs, const std::string& facts);

// What a tree has come to need until its stop and is not there.
std::vector<Shortcoming> check_names(const NeedsAtStop& changed);

// The part of it that several trees which come here together do not share: folders, descriptors,
// room for removed files, limits.
std::vector<Shortcoming> check_needs(const std::optional<Needs>& needs);

// The same as a message: "memory: 512.0 MiB needed, 120.5 MiB free; file …".
std::string describe(const std::vector<Shortcoming>& all);

// The same over the connection that a ghost is to take, ahead of it: the source asks, while the
// tree runs, and the target answers. Both give refused with all that the target lacks, and what
// comes of the connection. The source may ask again: what the tree had open may be closed by then.
// The target answers until nothing is lacking or the source hangs up; `live`, and what
// answer_source gives: the ghost comes live (live.hpp).
Status ask_target(Resource& target, const TreeFacts& facts, bool live);
Result<bool> answer_source(Resource& source);

}  // namespace ghost::core
