// Which rank this wrapper is for, from the environment the runtime component sets.
#pragma once

#include <cstdint>
#include <string>

namespace ghost::plugin {

struct Identity {
    std::string job;
    uint32_t rank = 0;
    std::string secret;       // hex
    std::string node_socket;  // empty: no node agent, the rank is not movable
    std::string criu = "criu";

    static Identity from_environment();
};

}  // namespace ghost::plugin
