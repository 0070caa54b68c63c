// SPDX-License-Identifier: BSD-3-Clause
// The virtual cluster as a whole: `ghost lab`'s verbs. Each locks the lab's folder for its time and
// leaves a consistent lab or says what is wrong; all of them can be repeated.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/lab/state.hpp"

namespace ghost::tools::lab {

struct UpOptions {
    std::string name = "default";
    std::optional<int> nodes;         // as many as it has, 3 for a new lab
    std::optional<std::string> rate;  // as it is, none for a new lab
    std::vector<std::string> shares;  // more folders to show in nodes
};

// Starts the lab, or repairs it: missing and dead nodes are made anew, cut links healed, nodes
// above `nodes` removed. Nodes that run are left alone.
Result<LabState> up(const UpOptions& options);
// Ends every process of the lab and removes all of it, whatever state it is in. False if there was
// nothing.
Result<bool> down(const std::string& name);

Status cut(const std::string& lab, const std::string& node);
Status heal(const std::string& lab, const std::string& node);
// SIGKILL to the node's first process: everything on it dies. With `silently` its link is cut
// first, so that no connection of it is ended properly, as when a machine loses power.
Status kill_node(const std::string& lab, const std::string& node, bool silently);
Status shape(const std::string& lab, const std::string& node, const std::string& rate);

// {"name", "state": "up"|"degraded", "nodes": [{"name", "address", "state": "up"|"dead", "link":
// "up"|"cut"|"absent", "rate", "pid"}]}. Not locked: what it finds at this moment.
Json status(const std::string& lab);

}  // namespace ghost::tools::lab
