// SPDX-License-Identifier: BSD-3-Clause
#include "tools/lab/node.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "tools/lab/network.hpp"

namespace ghost::tools::lab {
namespace {

// Only in the child, between clone and exec: plain system calls.
[[noreturn]] void become_node(const std::string& lab, const std::string& node, const Fd& net,
                              const Fd& ready, const Fd& commit, const std::string& log) {
    ::setsid();
    // Until the commit pipe is read, the death of `up` must end us.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = ::open("/dev/null", O_RDONLY);
    int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (::setns(net.get(), CLONE_NEWNET) != 0 || null < 0 || out < 0) ::_exit(1);
    ::dup2(null, STDIN_FILENO);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    // 3 and 4 for the pipes, whatever numbers they have now.
    int ready_up = ::fcntl(ready.get(), F_DUPFD, 64),
        commit_up = ::fcntl(commit.get(), F_DUPFD, 64);
    ::dup2(ready_up, 3);
    ::dup2(commit_up, 4);
    ::close_range(5, ~0U, 0);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    const char* argv[] = {"ghost", "lab", "node", lab.c_str(), node.c_str(), "3", "4", nullptr};
    const char* envp[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                          nullptr};
    ::execve("/proc/self/exe", const_cast<char**>(argv), const_cast<char**>(envp));
    ::_exit(1);
}

Result<std::pair<Fd, Fd>> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return sys_error("create a pipe");
    return std::pair{Fd(ends[0]), Fd(ends[1])};
}

}  // namespace

Result<StartingNode> StartingNode::start(const LabState& lab, const NodeState& node) {
    std::string name = node.name();
    Fd net(::open(namespace_path(lab.name, name).c_str(), O_RDONLY | O_CLOEXEC));
    if (!net.valid()) return sys_error("open network namespace of", name);
    auto ready = make_pipe(), commit = make_pipe();
    GHOST_TRY(ready);
    GHOST_TRY(commit);
    StartingNode out;
    out.log_ = lab_folder(lab.name) + "/log-" + name;
    clone_args args{};
    args.flags = CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS;
    args.exit_signal = SIGCHLD;
    auto pid = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
    if (pid < 0) return sys_error("create namespaces for node", name);
    if (pid == 0) become_node(lab.name, name, net, ready->second, commit->first, out.log_);
    auto id = identify(pid);
    GHOST_TRY(id);
    out.init_ = *id;
    out.ready_ = std::move(ready->first);
    out.commit_ = std::move(commit->second);
    return out;
}

Status StartingNode::wait_ready(int timeout_ms) {
    pollfd p{ready_.get(), POLLIN, 0};
    int64_t limit = monotonic_us() + int64_t{timeout_ms} * 1000;
    char byte = 0;
    for (;;) {
        int64_t left = limit - monotonic_us();
        int rc = ::poll(&p, 1, left > 0 ? static_cast<int>(left / 1000) : 0);
        if (rc < 0 && errno == EINTR) continue;
        if (rc > 0 && ::read(ready_.get(), &byte, 1) == 1) return {};
        auto said = read_file(log_);
        std::string why = said.ok() && !said->empty() ? *said : "it said nothing";
        return make_error(rc == 0 ? Code::timeout : Code::io, "start a node:", why);
    }
}

Status StartingNode::commit() {
    if (::write(commit_.get(), "c", 1) != 1) return sys_error("commit a node");
    commit_.reset();
    // Its end of the ready pipe closes once our death no longer ends it: not a moment earlier may
    // `up` be done.
    pollfd p{ready_.get(), POLLIN, 0};
    const int64_t limit = monotonic_us() + 10'000'000;
    char byte = 0;
    while (monotonic_us() < limit) {
        if (::poll(&p, 1, 100) > 0 && ::read(ready_.get(), &byte, 1) == 0) return {};
    }
    return make_error(Code::timeout, "commit a node");
}

std::string ssh_config_path(const std::string& lab) {
    return lab_folder(lab) + "/ssh_config";
}

}  // namespace ghost::tools::lab
