// SPDX-License-Identifier: BSD-3-Clause
// Commands on other nodes, by the agent mpirun would use. One thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"

namespace ghost::tools {

// "localhost" or this node's own name.
bool is_here(const std::string& node);

// The words that run a shell command on a node: GHOST_RSH, OMPI_MCA_plm_rsh_agent, else ssh.
// invalid: a name that could be an option.
Result<std::vector<std::string>> remote_words(const std::string& node, const std::string& command);

// Copies a file of another node into a new file here (0600, synced), if it is the user's there, and
// neither group nor others may write to it; refused: it is not. What the agent says on
// standard error is passed through.
Status fetch_file(const std::string& node, const std::string& path, const std::string& to);

}  // namespace ghost::tools
