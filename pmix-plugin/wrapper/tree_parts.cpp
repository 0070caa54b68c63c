// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/tree_parts.hpp"

#include <csignal>
#include <cstdlib>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::plugin {

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
    out.life = text("GHOST_LIFE", "");
    out.node_socket = text("GHOST_NODE_SOCKET", "");
    out.criu = text("GHOST_CRIU", "criu");
    return out;
}

WrapperHello Identity::hello(WrapperMode mode, pid_t init, std::string why) const {
    return {.job = job,
            .rank = rank,
            .secret = secret,
            .life = life,
            .pid = getpid(),
            .init = init,
            .mode = mode,
            .why = std::move(why)};
}

std::string rank_or_process(pid_t pid) {
    constexpr std::string_view variable{"\0PMIX_RANK=", 11};
    const std::string number = std::to_string(pid);
    const auto environment = read_file("/proc/" + number + "/environ");
    const size_t at = environment ? environment->find(variable) : std::string::npos;
    if (at == std::string::npos) return "process " + number;
    return "rank " + std::string(environment->c_str() + at + variable.size());
}

Status wake_agent(pid_t root, const std::optional<AgentThread>& agent) {
    const pid_t inner = agent ? agent->tid : 0;
    if (inner <= 0) return make_error(Code::invalid, "wake the rank's agent", {}, "not told which");
    auto thread = core::find_thread(root, inner);
    GHOST_TRY(thread);
    siginfo_t info{};
    info.si_signo = SIGRTMAX - 2;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    if (syscall(SYS_rt_tgsigqueueinfo, thread->pid, thread->tid, info.si_signo, &info) != 0) {
        return sys_error("wake the rank's agent");
    }
    return {};
}

}  // namespace ghost::plugin
