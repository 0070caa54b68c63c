// SPDX-License-Identifier: BSD-3-Clause
// Nodes of the host list that are kept free of ranks, as targets (ghost_spares).
#pragma once

#include <cstddef>
#include <functional>

namespace ghost::plugin::orte41 {

// In mpirun: `map` has ORTE map a job, for which the last `count` nodes of the list are not there.
// Never mpirun's own node, and never all.
void map_beside_spares(size_t count, const std::function<void()>& map);

}  // namespace ghost::plugin::orte41
