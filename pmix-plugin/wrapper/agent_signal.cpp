// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/agent_signal.hpp"

#include <csignal>
#include <sys/syscall.h>
#include <unistd.h>

#include "ghost-core/criu/tree.hpp"

namespace ghost::plugin {

Status wake_agent(pid_t root, const std::optional<AgentThread>& agent) {
    const pid_t inner = agent ? agent->tid : 0;
    if (inner <= 0) return make_error(Code::invalid, "wake the rank's agent: not told which");
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
