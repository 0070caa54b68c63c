#include "pmix-plugin/wrapper/spawn.hpp"

#include <climits>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include "pmix-plugin/wrapper/init_protocol.hpp"

namespace ghost::plugin {
namespace {

std::string init_path() {
    char own[PATH_MAX];
    ssize_t n = ::readlink("/proc/self/exe", own, sizeof own);
    if (n <= 0) return {};
    std::string path(own, static_cast<size_t>(n));
    return path.substr(0, path.rfind('/') + 1) + "ghost-init";
}

[[noreturn]] void become_init(const char* path, char* const* argv, const int (&ends)[3]) {
    for (int i = 0; i < 3; ++i) {
        if (ends[i] >= 0) dup2(ends[i], i);
    }
    syscall(SYS_close_range, 3u, ~0u, 0u);
    execv(path, argv);
    _exit(127);
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

Result<pid_t> spawn_program(const Identity& who, const Signals& signals, const Stdio& stdio,
                            char* const* program) {
    std::string path = init_path();
    if (access(path.c_str(), X_OK) != 0) {
        return sys_error("start a process of its own name space with", path, Code::unsupported);
    }
    std::string pid = std::to_string(first_inner_pid + who.rank);
    std::string mask = fmt::format("{:x}", signals.original_mask());
    std::string name = "ghost-init", ignored = signals.chld_ignored() ? "1" : "0";
    std::vector<char*> argv = {name.data(), pid.data(), mask.data(), ignored.data()};
    for (char* const* p = program; *p != nullptr; ++p) argv.push_back(*p);
    argv.push_back(nullptr);
    const int ends[3] = {stdio.rank_end(0), stdio.rank_end(1), stdio.rank_end(2)};
    // clone, not unshare: after that every later child, criu included, would be inside
    // (pid_namespaces(7)).
    clone_args args{};
    args.flags = CLONE_NEWPID;
    args.exit_signal = SIGCHLD;
    long child = syscall(SYS_clone3, &args, sizeof args);
    if (child < 0) return sys_error("make a process name space", {}, Code::unsupported);
    if (child == 0) become_init(path.c_str(), argv.data(), ends);
    return static_cast<pid_t>(child);
}

}  // namespace ghost::plugin
