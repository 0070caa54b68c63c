// SPDX-License-Identifier: BSD-3-Clause
// What a move or a snapshot of a rank's tree works on.
#pragma once

#include <functional>
#include <string>
#include <sys/types.h>
#include <utility>

#include "ghost-core/supervisor/guard.hpp"
#include "pmix-plugin/wrapper/identity.hpp"
#include "pmix-plugin/wrapper/stdio.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

// All outlive whoever has them; main thread only, but for `who` and `root`.
struct TreeParts {
    const Identity& who;
    pid_t root = 0;
    Stdio& stdio;
    core::Guard& guard;
    std::function<void(const std::string& packet)> send;  // to the node agent

    template <typename T>
    void tell(const T& message) const {
        send(schema::encode(message));
    }
    void tell(const Outgoing& message) const { send(encode(message)); }
    void fail(uint64_t seq, const char* stage, std::string why) const {
        tell(who.failed(seq, stage, std::move(why)));
    }
};

}  // namespace ghost::plugin
