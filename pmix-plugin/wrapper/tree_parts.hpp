// SPDX-License-Identifier: BSD-3-Clause
// What a move or a snapshot of a rank's tree works on.
#pragma once

#include <functional>
#include <sys/types.h>

#include "base/control_socket.hpp"
#include "pmix-plugin/wrapper/guard.hpp"
#include "pmix-plugin/wrapper/identity.hpp"
#include "pmix-plugin/wrapper/stdio.hpp"

namespace ghost::plugin {

// All outlive whoever has them; main thread only, but for `who` and `root`.
struct TreeParts {
    const Identity& who;
    pid_t root = 0;
    Stdio& stdio;
    Guard& guard;
    std::function<void(const Json&)> tell;  // to the node agent
};

}  // namespace ghost::plugin
