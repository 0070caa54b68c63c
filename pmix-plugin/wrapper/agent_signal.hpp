// SPDX-License-Identifier: BSD-3-Clause
// The signal that tells a rank's agent that its tree runs again.
#pragma once

#include <optional>
#include <sys/types.h>

#include "base/result.hpp"
#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

// SIGRTMAX-2 to one thread of the tree whose init is `root`. not_found: no such thread.
Status wake_agent(pid_t root, const std::optional<AgentThread>& agent);

}  // namespace ghost::plugin
