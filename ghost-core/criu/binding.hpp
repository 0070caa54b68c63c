// SPDX-License-Identifier: BSD-3-Clause
// One processor for CRIU and the tree that is frozen for it.
//
// They talk to each other some hundred times for each process, one waiting for the other all the
// time: on two processors every word wakes the other one's, which takes longer than what is done
// then (docs/PERFORMANCE.md has the figures). CRIU alone cannot be sent to the tree's: the kernel
// would wake the tree's thread elsewhere.
#pragma once

#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {

// Binds every thread of the stopped tree, whose `tasks` these are, and CRIU with its helpers, to a
// processor that all may use, where the tree's program ran last if that is one. What they were
// bound to before is noted in a file first, so that whoever lets the tree go can give it back when
// we are killed. A failure leaves everything as it was: it only takes longer then.
Status bind_tree(pid_t root, const std::vector<Task>& tasks, pid_t criu);

// Gives the tree's threads back what bind_tree() of any process has taken; nothing to do is fine.
void unbind_tree(pid_t root, const std::vector<Task>& tasks);
void unbind_tree(pid_t root);

}  // namespace ghost::core
