// SPDX-License-Identifier: BSD-3-Clause
// What is written down about a lab: one folder per lab, mode 0700, locked by flock(2) while it is
// changed. The kernel's own state (namespaces, links, processes) is the truth; the folder only says
// what was wanted and which processes are meant.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/json.hpp"
#include "tools/process.hpp"

namespace ghost::tools::lab {

using Json = nlohmann::json;

// One node: gn1, gn2, …; its address is 10.77.0.<index>.
struct NodeState {
    int index = 0;
    ProcessId init;             // first process of its PID namespace; pid 0: not started
    std::string rate = "none";  // as `ghost lab shape` takes it

    std::string name() const { return "gn" + std::to_string(index); }
    std::string address() const { return "10.77.0." + std::to_string(index); }
};

struct LabState {
    std::string name;
    std::string boot;  // boot_id() when the nodes were started
    std::vector<NodeState> nodes;
    std::vector<std::string> shares;  // folders of the machine shown in nodes although hidden there

    NodeState* find(const std::string& node);
    const NodeState* find(const std::string& node) const;
};

inline constexpr int most_nodes = 200;

// Folder of all labs' folders, and of one lab. Not below a folder that nodes have of their own.
std::string root_folder();
std::string lab_folder(const std::string& name);

// Letters, digits and '-', at most 24, beginning with a letter or digit.
bool is_valid_name(const std::string& name);

// Opens and locks a folder, waiting for whoever holds it; makes it (0700) if missing. Removing the
// folder while holding the lock is allowed: the next one to lock it notices.
Result<Fd> lock_folder(const std::string& path);

// not_found if nothing is written down; corrupt if it cannot be understood.
Result<LabState> load_state(const std::string& name);
Status save_state(const LabState& state);

// Names of all labs of which anything is left (folder or network namespace), sorted.
std::vector<std::string> known_labs();

// The lab that is meant: `given`, else $GHOST_LAB, else the only one there is.
Result<std::string> choose_lab(const std::string& given);

// invalid, with the node's real names, if the lab has no such node.
Error no_such_node(const LabState& state, const std::string& node);

}  // namespace ghost::tools::lab
