// SPDX-License-Identifier: BSD-3-Clause
// The variables one rank finds in its environment (docs/PROTOCOL.md, "Environment of a rank"), and
// the addresses they name. Used when a rank is forked and when a wrapper restores one.
#pragma once

#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

namespace ghost::plugin {

// Abstract address of the node agent of a job; the same on every node (the abstract name space is
// per network name space). `job` is the job's number in decimal.
std::string node_socket(const std::string& job, uid_t user);

// Abstract address of the stream manager (docs/KERNET.md) in the daemon whose node agent is at
// `node_socket`: on every node the same, so that it holds wherever a rank moves.
std::string stream_manager_address(const std::string& node_socket);
// Where libkernet looks for it.
inline constexpr const char* stream_manager_variable = "KERNET_MANAGER";

// Everything that differs between ranks. The secret, criu's path and the log are the same for all
// and travel in the launch message.
std::vector<std::pair<std::string, std::string>> rank_environment(unsigned job, unsigned rank,
                                                                  unsigned node,
                                                                  const std::string& node_name);

// The same for a guest: a rank of a job that ranks of job `host` have spawned. It cannot move.
std::vector<std::pair<std::string, std::string>> guest_environment(unsigned host, unsigned node,
                                                                   const std::string& node_name);

}  // namespace ghost::plugin
