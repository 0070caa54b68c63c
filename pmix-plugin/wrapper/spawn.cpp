// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/spawn.hpp"

#include <cstdlib>
#include <string_view>
#include <unistd.h>

#include "base/paths.hpp"
#include "ghost-core/criu/nested.hpp"

namespace ghost::plugin {
namespace {

// Rank r is process number first_inner_pid + r in its name space, so that getpid() is unique in a
// job as programs expect that name files after it.
constexpr int first_inner_pid = 1000;

}  // namespace

Result<pid_t> spawn_program(const Identity& who, const core::Signals& signals, const Stdio& stdio,
                            char* const* program) {
    core::NestedProgram nested;
    nested.init = core::init_beside(own_program());
    nested.criu = who.criu;
    nested.number = std::to_string(first_inner_pid + static_cast<int>(who.rank));
    nested.argv = program;
    const char* own_ipc = std::getenv("GHOST_OWN_IPC");
    nested.own_ipc = own_ipc != nullptr && std::string_view(own_ipc) == "1";
    for (int i = 0; i < 3; ++i) nested.stdio[static_cast<size_t>(i)] = stdio.rank_end(i);
    return core::spawn_nested(nested, signals.original());
}

}  // namespace ghost::plugin
