// SPDX-License-Identifier: BSD-3-Clause
// Starts the program of a rank in a PID name space of its own.
#pragma once

#include <sys/types.h>

#include "base/result.hpp"
#include "ghost-core/criu/signals.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/stdio.hpp"

namespace ghost::plugin {

// The new name space's init (ghost-init, found beside this executable), our child. The program has
// the rank's ends of `stdio` as descriptors 0 to 2 and no others, and the signal state of before
// core::Signals::block(). unsupported: no right to make name spaces, or no ghost-init.
Result<pid_t> spawn_program(const Identity& who, const core::Signals& signals, const Stdio& stdio,
                            char* const* program);

}  // namespace ghost::plugin
