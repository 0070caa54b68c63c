// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/spares.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"

namespace ghost::plugin::orte41 {

namespace {

// Those that ranks can be mapped to, in the order of the host list; mpirun's own, which is the
// first of ORTE's list, is not among them.
std::vector<orte_node_t*> other_nodes() {
    std::vector<orte_node_t*> out;
    for (int i = 1; i < orte_node_pool->size; ++i) {
        auto* node = item<orte_node_t>(orte_node_pool, i);
        if (node && !ORTE_FLAG_TEST(node, ORTE_NODE_NON_USABLE)) out.push_back(node);
    }
    return out;
}

bool is_mapped() {
    const orte_job_t* job = app_job();
    return job && job->map && job->map->num_nodes > 0;
}

}  // namespace

void map_beside_spares(size_t count, const std::function<void()>& map) {
    auto nodes = other_nodes();
    const size_t room = nodes.size() - (orte_hnp_is_allocated || nodes.empty() ? 0 : 1);
    if (count > room)
        log::warning("ghost_spares is {}, but the job has {} other nodes: {} are kept free", count,
                     room, room);
    nodes.erase(nodes.begin(), nodes.end() - static_cast<long>(std::min(count, room)));
    std::vector<std::string> names;
    for (orte_node_t* node : nodes) {
        names.emplace_back(node->name);
        ORTE_FLAG_SET(node, ORTE_NODE_NON_USABLE);
    }
    map();
    for (orte_node_t* node : nodes) ORTE_FLAG_UNSET(node, ORTE_NODE_NON_USABLE);
    if (!nodes.empty() && !is_mapped())
        log::warning("no ranks go to {}, kept free by ghost_spares", fmt::join(names, ", "));
}

}  // namespace ghost::plugin::orte41
