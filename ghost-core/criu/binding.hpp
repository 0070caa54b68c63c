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
#include "ghost-core/criu/placement.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {

// Binds every thread of the stopped tree, and CRIU with its helpers, to a processor that all may
// use, where the tree's program ran last if that is one. How the threads were placed `before` has
// been noted (placement.hpp). A failure leaves everything as it was: it only takes longer then.
Status bind_tree(const std::vector<Task>& tasks, const Placements& before, pid_t criu);
// The tree's threads have the processors again that they had before.
void unbind_tree(const Placements& before);

}  // namespace ghost::core
