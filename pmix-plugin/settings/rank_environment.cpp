// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/settings/rank_environment.hpp"

#include <unistd.h>

namespace ghost::plugin {

std::string node_socket(const std::string& job, uid_t user) {
    return "@ghost/" + std::to_string(user) + "/" + job;
}

std::string stream_manager_address(const std::string& node_socket) {
    return node_socket + "/streams";
}

std::vector<std::pair<std::string, std::string>> rank_environment(unsigned job, unsigned rank,
                                                                  unsigned node,
                                                                  const std::string& node_name) {
    const std::string name = std::to_string(job);
    return {{"GHOST_JOB", name},
            {"GHOST_RANK", std::to_string(rank)},
            {"GHOST_NODE_SOCKET", node_socket(name, geteuid())},
            {"GHOST_NODE_ID", std::to_string(node)},
            {"GHOST_NODE_NAME", node_name},
            {"PMIX_MCA_gds", "hash"}};
}

std::vector<std::pair<std::string, std::string>> guest_environment(unsigned host, unsigned node,
                                                                   const std::string& node_name) {
    return {{"GHOST_GUEST_OF", std::to_string(host)},
            {"GHOST_NODE_ID", std::to_string(node)},
            {"GHOST_NODE_NAME", node_name},
            {"PMIX_MCA_gds", "hash"}};
}

}  // namespace ghost::plugin
