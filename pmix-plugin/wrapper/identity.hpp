// SPDX-License-Identifier: BSD-3-Clause
// Which rank this wrapper is for, from the environment the runtime component sets.
#pragma once

#include <cstdint>
#include <string>

#include "base/control_socket.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"

namespace ghost::plugin {

struct Identity {
    std::string job;
    uint32_t rank = 0;
    std::string secret;       // hex
    std::string node_socket;  // empty: no node agent, the rank is not movable
    std::string criu = "criu";

    static Identity from_environment();
};

// The answer `failed` of docs/PROTOCOL.md.
inline Json failed(uint64_t seq, const char* stage, const std::string& why) {
    return {{"t", "failed"}, {"seq", seq}, {"stage", stage}, {"why", why}};
}

}  // namespace ghost::plugin
