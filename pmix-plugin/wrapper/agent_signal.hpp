// SPDX-License-Identifier: BSD-3-Clause
// The signal that tells a rank's agent that its tree runs again.
#pragma once

#include <sys/types.h>

#include "base/control_socket.hpp"
#include "base/result.hpp"

namespace ghost::plugin {

// SIGRTMAX-2 to one thread of the tree whose init is `root`. `agent` is {pid, tid} as the rank said
// in its hello, numbered inside (docs/PROTOCOL.md). not_found: no such thread.
Status wake_agent(pid_t root, const Json& agent);

}  // namespace ghost::plugin
