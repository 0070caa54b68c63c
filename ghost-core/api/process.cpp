// SPDX-License-Identifier: BSD-3-Clause
// Processes by their numbers: started so that they can leave, and waited for.
#include <cerrno>
#include <cstdlib>
#include <sys/wait.h>

#include "base/paths.hpp"
#include "ghost-core/api/objects.hpp"
#include "ghost-core/criu/nested.hpp"
#include "ghost-core/engine/plain.hpp"

using namespace ghost::core;

namespace ghost::api {
namespace {

std::string from_environment(const char* name, const char* otherwise) {
    const char* said = std::getenv(name);
    return said != nullptr ? said : otherwise;
}

}  // namespace

std::string criu_program() {
    return from_environment("GHOST_CRIU", GHOST_CRIU_PROGRAM);
}

std::optional<PageOrder> page_order(ghost_mode mode) {
    switch (mode) {
        case GHOST_MODE_LIVE:
            return PageOrder::pre_copy;
        case GHOST_MODE_LAZY:
            return PageOrder::post_copy;
        case GHOST_MODE_HYBRID:
            return PageOrder::hybrid;
        default:
            return {};
    }
}

Result<pid_t> start_process(char* const* argv) {
    if (argv[0] == nullptr)
        return make_error(Code::invalid, "start process", {}, "no program is named");
    if (find_in_path(argv[0]).empty())
        return make_error(Code::not_found, "start process", argv[0], "there is no such program");
    NestedProgram program;
    program.init = from_environment("GHOST_INIT", GHOST_LIBEXEC_DIR "/ghost-init");
    program.criu = criu_program();
    program.number = random_number();
    program.argv = argv;
    program.environment = {std::string(clone_variable) + "=0"};
    program.own_ipc = true;
    auto root = spawn_nested(program, SignalState::now());
    if (root) wait_for_program(*root);
    return root;
}

Result<int> wait_process(pid_t process) {
    siginfo_t ended{};
    while (waitid(P_PID, static_cast<id_t>(process), &ended, WEXITED | WNOWAIT) != 0)
        if (errno != EINTR) return sys_error("wait for process", std::to_string(process));
    return reap_nested(process);
}

}  // namespace ghost::api
