// SPDX-License-Identifier: BSD-3-Clause
// Which rank this wrapper is for, from the environment the runtime component sets.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <utility>

#include "pmix-plugin/protocol/node_wrapper.hpp"

namespace ghost::plugin {

struct Identity {
    std::string job;
    uint32_t rank = 0;
    std::string secret;       // hex
    std::string node_socket;  // empty: no node agent, the rank is not movable
    std::string criu = "criu";

    static Identity from_environment();
    // `init`: of the rank's tree, 0 while there is none.
    WrapperHello hello(WrapperMode mode, pid_t init, std::string why = {}) const;
    Failed failed(uint64_t seq, const char* stage, std::string why) const {
        return {seq, rank, stage, std::move(why)};
    }
};

}  // namespace ghost::plugin
