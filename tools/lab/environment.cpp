// SPDX-License-Identifier: BSD-3-Clause
#include "tools/lab/environment.hpp"

#include "tools/lab/node.hpp"
#include "tools/paths.hpp"

namespace ghost::tools::lab {

std::vector<std::pair<std::string, std::string>> node_environment(const std::string& lab) {
    const std::string network = "10.77.0.0/24";
    std::vector<std::pair<std::string, std::string>> out{
        {"GHOST_LAB", lab},
        // Nodes have no user but root.
        {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
        {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
        {"OMPI_MCA_plm_rsh_agent", "ssh -F " + ssh_config_path(lab)},
        // All nodes share the machine's few cores.
        {"OMPI_MCA_hwloc_base_binding_policy", "none"},
        {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
        {"OMPI_MCA_oob_tcp_if_include", network},
        {"OMPI_MCA_btl_tcp_if_include", network},
    };
    for (auto& pair : ghost_environment(find_paths())) out.push_back(std::move(pair));
    return out;
}

}  // namespace ghost::tools::lab
