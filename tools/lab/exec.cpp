// SPDX-License-Identifier: BSD-3-Clause
// Three processes: the caller's (outside, so that it survives the node and can say so), a keeper
// inside the node's PID namespace, and the command. The keeper is the subreaper of the command's
// descendants, which is how it can end all of them when the caller's process vanishes: that shows
// as the end of the pipe over which signal numbers come.
#include "tools/lab/exec.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/child.hpp"
#include "base/exit_status.hpp"
#include "base/file.hpp"
#include "base/fork.hpp"
#include "base/loop.hpp"
#include "tools/lab/node.hpp"

namespace ghost::tools::lab {
namespace {

constexpr std::array passed_on = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                                  SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH};
constexpr int64_t grace_us = 2'000'000;

sigset_t watched_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (int signal : passed_on) sigaddset(&set, signal);
    sigaddset(&set, SIGCHLD);
    return set;
}

// True if a terminal's keys already reach the command because it stays in our process group.
bool in_foreground() {
    Fd tty(::open("/dev/tty", O_RDONLY | O_CLOEXEC));
    return tty.valid() && ::tcgetpgrp(tty.get()) == ::getpgrp();
}

void set_environment(const LabState& lab, const LabUser* user) {
    for (const auto& [name, value] : node_environment(lab.name))
        ::setenv(name.c_str(), value.c_str(), 1);
    if (user != nullptr) {
        for (const auto& [name, value] : environment_of(*user))
            ::setenv(name.c_str(), value.c_str(), 1);
    }
    // A temporary folder of the machine means nothing where /tmp is the node's own.
    const char* tmp = std::getenv("TMPDIR");
    if (tmp != nullptr && ::access(tmp, W_OK) != 0) ::unsetenv("TMPDIR");
}

pid_t run_command(const std::vector<std::string>& argv, bool own_group) {
    using Place = ChildRequest::Place;
    auto command = Child::start({.argv = argv,
                                 .stdio = {inherited, inherited, inherited},
                                 .closes_others = false,
                                 .place = own_group ? Place::own_group : Place::here,
                                 .signals = ChildRequest::Signals::unblocked});
    if (command) return command->release();
    const int error = command.error().sys;
    fmt::print(stderr, "ghost: run {} on the node: {}\n", argv[0], std::strerror(error));
    ::_exit(error == ENOENT ? 127 : 126);
}

pid_t parent_of(pid_t pid) {
    auto text = read_file(fmt::format("/proc/{}/stat", pid));
    size_t close = text.ok() ? text->rfind(')') : std::string::npos;
    return close == std::string::npos
               ? 0
               : std::atoi(text->c_str() + std::min(close + 4, text->size()));
}

bool descends_from(pid_t pid, pid_t ancestor) {
    for (int depth = 0; pid > 1 && depth < 1000; ++depth) {
        pid = parent_of(pid);
        if (pid == ancestor) return true;
    }
    return false;
}

// Signals every descendant of this process; all of them are in this PID namespace.
void signal_descendants(int signal) {
    std::error_code ec;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ec)) {
        pid_t pid = std::atoi(entry.path().filename().c_str());
        if (pid > 1 && descends_from(pid, ::getpid())) ::kill(pid, signal);
    }
}

// Inside the node: passes signals on, collects orphans, ends with the command's status.
class Keeper {
  public:
    Keeper(pid_t command, const Fd& signals, const Fd& orders, bool own_group)
        : command_(command), signals_(signals), orders_(orders), own_group_(own_group) {}

    [[noreturn]] void run() {
        const auto on_child = loop_.on_readable(signals_.get(), [this] { collect(); });
        on_order_ = loop_.on_readable(orders_.get(), [this] { pass_on(); });
        (void)loop_.run();
        ::_exit(1);
    }

  private:
    void collect() {
        signalfd_siginfo info{};
        if (::read(signals_.get(), &info, sizeof info) < 0) return;
        int status = 0;
        pid_t pid = 0;
        while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0) {
            if (pid == command_ && on_order_) ::_exit(exit_status_of(status));
        }
        if (pid < 0 && errno == ECHILD) ::_exit(1);       // the last one, without a caller
        if (grace_is_over_) signal_descendants(SIGKILL);  // of those that were ended
    }

    void pass_on() {
        char signal = 0;
        if (::read(orders_.get(), &signal, 1) != 1) return end_everything();
        // The group, because a shell's job control would reach the whole of it.
        ::kill(own_group_ ? -command_ : command_, signal);
    }

    // The caller is dead: nobody may be left.
    void end_everything() {
        on_order_.reset();
        signal_descendants(SIGTERM);
        signal_descendants(SIGCONT);
        on_limit_ = loop_.after(grace_us, [this] {
            grace_is_over_ = true;
            signal_descendants(SIGKILL);
        });
    }

    const pid_t command_;
    const Fd& signals_;
    const Fd& orders_;
    const bool own_group_;
    bool grace_is_over_ = false;
    Loop loop_;
    Loop::Watch on_order_;  // none: the caller is dead
    Loop::Watch on_limit_;
};

[[noreturn]] void be_keeper(const LabState& lab, const std::vector<std::string>& argv,
                            const LabUser* user, const std::string& folder, const Fd& orders,
                            bool own_group) {
    if (::chdir(folder.c_str()) != 0) {
        fmt::print(stderr,
                   "ghost: the working directory {} does not exist on the node; share it by `ghost "
                   "lab up --share {}`\n",
                   folder, folder);
        ::_exit(1);
    }
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    set_environment(lab, user);
    sigset_t set = watched_signals();
    Fd signals(::signalfd(-1, &set, SFD_CLOEXEC));
    const auto command = user != nullptr ? as_user(*user, argv) : argv;
    Keeper(run_command(command, own_group), signals, orders, own_group).run();
}

// The caller's side: signals in, orders out, until the keeper ends.
Result<int> attend(pid_t keeper, const Fd& orders, bool own_group, const std::string& node) {
    sigset_t set = watched_signals();
    Fd signals(::signalfd(-1, &set, SFD_CLOEXEC));
    for (;;) {
        signalfd_siginfo info{};
        if (::read(signals.get(), &info, sizeof info) != sizeof info) continue;
        if (info.ssi_signo == SIGCHLD) {
            int status = 0;
            if (::waitpid(keeper, &status, WNOHANG) != keeper) continue;
            if (WIFSIGNALED(status)) {
                return make_error(Code::peer_lost, "run the command to its end on", node);
            }
            return exit_status_of(status);
        }
        // What a terminal's key sent, it sent to the command as well (SI_KERNEL, sigaction(2)).
        if (!own_group && info.ssi_code == SI_KERNEL) continue;
        char number = static_cast<char>(info.ssi_signo);
        if (::write(orders.get(), &number, 1) < 0) continue;
    }
}

}  // namespace

Result<int> exec_on_node(const LabState& lab, const NodeState& node,
                         const std::vector<std::string>& argv, const LabUser* user) {
    auto init = open_process(node.init);
    if (!init.ok()) {
        return make_error(
            Code::refused, fmt::format("run a command on node {} of lab {}", node.name(), lab.name),
            {}, fmt::format("it is down; `ghost lab up --name {}` starts it again", lab.name));
    }
    std::error_code ec;
    std::string folder = std::filesystem::current_path(ec).string();
    if (ec) return sys_error_of(ec.value(), "find the working directory");
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return sys_error("create a pipe");
    Fd orders_in(ends[0]), orders_out(ends[1]);
    sigset_t set = watched_signals();
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    bool own_group = !in_foreground();
    // Only children enter a PID namespace (setns(2)), so this process stays where it is for that
    // one; the child enters the others.
    if (::setns(init->get(), CLONE_NEWPID) != 0) return sys_error("enter node", node.name());
    pid_t keeper = fork_process();
    if (keeper < 0) return sys_error("start a process on node", node.name());
    if (keeper == 0) {
        orders_out.reset();
        ::signal(SIGPIPE, SIG_DFL);
        if (::setns(init->get(), CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS) != 0) {
            fmt::print(stderr, "ghost: enter node {}: {}\n", node.name(), std::strerror(errno));
            ::_exit(1);
        }
        be_keeper(lab, argv, user, folder, orders_in, own_group);
    }
    orders_in.reset();
    return attend(keeper, orders_out, own_group, node.name());
}

}  // namespace ghost::tools::lab
