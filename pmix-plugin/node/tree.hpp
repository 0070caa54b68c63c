// SPDX-License-Identifier: BSD-3-Clause
// The process tree of a rank as the node agent touches it: is it alive, and kill it.
#pragma once

#include "pmix-plugin/node/node_agent.hpp"
#include "pmix-plugin/node/rank_slot.hpp"

namespace ghost::plugin {

// Remembers the tree's first process by pidfd (no mistaken identity when pids are used again).
void take_tree(RankSlot& slot, pid_t init);
bool tree_alive(const RankSlot& slot, const TreeControl& control);
// SIGKILL to the first process ends the whole PID name space (pid_namespaces(7)).
void kill_tree(const RankSlot& slot, const TreeControl& control);

}  // namespace ghost::plugin
