// SPDX-License-Identifier: BSD-3-Clause
// Running a command on a node.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "tools/lab/state.hpp"
#include "tools/lab/user.hpp"

namespace ghost::tools::lab {

// Runs argv in all the node's namespaces with this process's working directory and standard
// streams, and waits for it. Signals this process gets are passed on. If this process is killed,
// the command and what it started (and did not outlive it on purpose) is ended: SIGTERM, two
// seconds later SIGKILL. Returns the command's exit status, 128 + signal if a signal ended it, 126
// or 127 if it could not be started. Call from a process with one thread. user: null is root.
Result<int> exec_on_node(const LabState& lab, const NodeState& node,
                         const std::vector<std::string>& argv, const LabUser* user);

}  // namespace ghost::tools::lab
