// SPDX-License-Identifier: BSD-3-Clause
// The environment of a command on a node.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ghost::tools::lab {

// What makes mpirun and ghost work on a node of this lab as they stand: Open MPI's settings for the
// lab (over the lab's ssh and network only), and what `ghost env` prints. Name and value.
std::vector<std::pair<std::string, std::string>> node_environment(const std::string& lab);

}  // namespace ghost::tools::lab
