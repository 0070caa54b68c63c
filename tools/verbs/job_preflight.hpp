// SPDX-License-Identifier: BSD-3-Clause
// What a restart of a job needs and does not find on this node; everything in one list, before
// anything is started.
#pragma once

#include <string>
#include <vector>

#include "pmix-plugin/snapshots/folder.hpp"
#include "tools/paths.hpp"

namespace ghost::tools {

struct Shortcomings {
    std::vector<std::string> here;  // refused
    // Of nodes where ranks may start that are not this one: only their own look can tell. They
    // look before any rank runs.
    std::vector<std::string> perhaps;
};

// `elsewhere`: hosts were named, so that this node may get no rank at all.
Shortcomings find_shortcomings(const plugin::Snapshot& snapshot, const Paths& paths,
                               bool elsewhere);

}  // namespace ghost::tools
