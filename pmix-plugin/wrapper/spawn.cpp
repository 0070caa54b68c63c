// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/spawn.hpp"

#include <cstdlib>
#include <unistd.h>

#include "base/paths.hpp"
#include "ghost-core/criu/nested.hpp"

namespace ghost::plugin {
namespace {

// Rank r is process number first_inner_pid + r in its name space, so that getpid() is unique in a
// job as programs expect that name files after it.
constexpr int first_inner_pid = 1000;

std::string init_path() {
    const std::string path = own_program();
    return path.empty() ? path : path.substr(0, path.rfind('/') + 1) + "ghost-init";
}

}  // namespace

Identity Identity::from_environment() {
    auto text = [](const char* name, const char* otherwise) {
        const char* value = std::getenv(name);
        return std::string(value != nullptr ? value : otherwise);
    };
    Identity out;
    out.job = text("GHOST_JOB", "");
    out.rank = static_cast<uint32_t>(
        std::atoi(text("GHOST_RANK", text("PMIX_RANK", "0").c_str()).c_str()));
    out.secret = text("GHOST_SECRET", "");
    out.node_socket = text("GHOST_NODE_SOCKET", "");
    out.criu = text("GHOST_CRIU", "criu");
    return out;
}

WrapperHello Identity::hello(WrapperMode mode, pid_t init, std::string why) const {
    return {.job = job,
            .rank = rank,
            .secret = secret,
            .pid = getpid(),
            .init = init,
            .mode = mode,
            .why = std::move(why)};
}

Result<pid_t> spawn_program(const Identity& who, const core::Signals& signals, const Stdio& stdio,
                            char* const* program) {
    core::NestedProgram nested;
    nested.init = init_path();
    nested.number = std::to_string(first_inner_pid + static_cast<int>(who.rank));
    nested.argv = program;
    for (int i = 0; i < 3; ++i) nested.stdio[static_cast<size_t>(i)] = stdio.rank_end(i);
    return core::spawn_nested(nested, signals);
}

}  // namespace ghost::plugin
