// SPDX-License-Identifier: BSD-3-Clause
// System V shared memory, semaphores and message queues (sysvipc(7)) that a tree uses in the IPC
// name space of its node. They stay there when it leaves: their numbers may be taken where it
// comes to. A tree with an IPC name space of its own takes its objects along.
#pragma once

#include <string>
#include <vector>

#include "ghost-core/criu/preflight.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {

// One line for each such object. The kernel notes who was the last to use a semaphore or a queue,
// not who else does: those that nobody alive has used last, or that have a key and a rank that
// `name_of` knows has, are taken to be the tree's if its user has made them and they have changed
// since it was started.
std::vector<std::string> node_ipc_objects(const std::vector<Task>& tree, const std::string& who,
                                          NameOf name_of);

}  // namespace ghost::core
