// SPDX-License-Identifier: BSD-3-Clause
#include "tools/plain.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <set>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fork.hpp"
#include "base/json_member.hpp"
#include "base/json_text.hpp"
#include "base/loop.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/nested.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
bool ends_with_caller(int fd) {
    struct stat info {};
    return ::fstat(fd, &info) != 0 || S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode) ||
           ::isatty(fd) == 1;
}

void reopen_foreign_stdio() {
    for (int i = 0; i < 3; ++i) {
        struct stat was {
        }, now{};
        if (::fstat(i, &was) != 0 || !(S_ISREG(was.st_mode) || S_ISCHR(was.st_mode)) ||
            ::isatty(i) == 1 || core::is_mounted_for(::getpid(), ::getpid(), i))
            continue;
        const auto path = link_of(fmt::format("/proc/self/fd/{}", i));
        const int flags = ::fcntl(i, F_GETFL) & (O_ACCMODE | O_APPEND);
        const Fd again(::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY));
        if (!again.valid() || ::fstat(again.get(), &now) != 0) continue;
        const bool same = S_ISCHR(was.st_mode)
                              ? was.st_rdev == now.st_rdev
                              : was.st_ino == now.st_ino && was.st_dev == now.st_dev;
        if (!same) continue;
        if (S_ISREG(was.st_mode)) ::lseek(again.get(), ::lseek(i, 0, SEEK_CUR), SEEK_SET);
        ::dup2(again.get(), i);
    }
}

namespace {

// In a session of its own the default action would be ignored (setpgid(2), orphaned groups); a job
// that is stopped is stopped with its processes.
void stop_with(const core::PlainTree& tree) {
    std::set<pid_t> stay;  // those that are stopped already
    if (auto tasks = core::list_tree(tree.root))
        for (const auto& task : *tasks) {
            if (task.state == 'T') stay.insert(task.pid);
            if (task.pid != tree.root || !tree.nested) ::kill(task.pid, SIGSTOP);
        }
    ::kill(::getpid(), SIGSTOP);
    if (auto tasks = core::list_tree(tree.root)) (void)core::continue_tasks(*tasks, stay);
}

// Returns when the child has ended; signals that come at `signals` before are taken by `take`.
void stay_with(pid_t child, int signals, const std::function<void()>& take) {
    Loop loop;
    const auto on_signal = loop.on_readable(signals, take);
    const auto on_end = loop.on_end(child, [&] { loop.stop(); });
    if (Status done = loop.run(); !done) fmt::print(stderr, "ghost: {}\n", done.error().message());
}

int reap(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
}

}  // namespace

int attend(const core::PlainTree& tree, const core::Signals& signals) {
    stay_with(tree.root, signals.fd(), [&] {
        while (const int s = signals.next()) {
            if (s == SIGTSTP || s == SIGTTIN || s == SIGTTOU)
                stop_with(tree);
            else
                ::kill(tree.root, s);
        }
    });
    return tree.nested ? core::reap_nested(tree.root) : reap(tree.root);
}

Result<Detached> Detached::start() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return sys_error("make a pipe");
    Fd ours(ends[0]);
    Detached out;
    out.pipe_.reset(ends[1]);
    const pid_t pid = fork_process();
    if (pid < 0) return sys_error("start a process in the background");
    if (pid == 0) {
        ours.reset();
        ::setsid();
        ::signal(SIGHUP, SIG_IGN);
        const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
        for (int i = 0; i < 3; ++i)
            if (ends_with_caller(i)) ::dup2(null.get(), i);
        ::signal(SIGHUP, SIG_DFL);
        return out;
    }
    out.pipe_.reset();
    std::string said;
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(ours.get(), buffer, sizeof buffer)) != 0;) {
        if (got > 0) said.append(buffer, static_cast<size_t>(got));
    }
    const Json word = parse_json(said);
    if (!word.is_object()) {
        fmt::print(stderr, "ghost: the background process has ended\n");
        ::_exit(1);
    }
    fmt::print("{}", member(word, "text", ""));
    fmt::print(stderr, "{}", member(word, "error", ""));
    std::fflush(nullptr);
    ::_exit(member(word, "exit", 1));
}

void Detached::report(int exit_status, const std::string& text, const std::string& error) {
    if (!pipe_.valid()) return;
    const std::string word = Json{{"exit", exit_status}, {"text", text}, {"error", error}}.dump(
        -1, ' ', false, Json::error_handler_t::replace);
    for (size_t at = 0; at < word.size();) {
        const ssize_t put = ::write(pipe_.get(), word.data() + at, word.size() - at);
        if (put < 0 && errno != EINTR) break;
        at += static_cast<size_t>(std::max<ssize_t>(put, 0));
    }
    pipe_.reset();
}

int in_worker(const std::function<int()>& work) {
    hold_interruptions();
    const pid_t self = ::getpid(), child = fork_process();
    if (child < 0) return report(sys_error("start a process"), false);
    if (child == 0) {
        ::setsid();
        if (!die_with(self, SIGTERM)) ::_exit(exit_unharmed);
        const int status = work();
        std::fflush(nullptr);
        ::_exit(status);
    }
    sigset_t set;
    sigemptyset(&set);
    for (const int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, s);
    const Fd signals(::signalfd(-1, &set, SFD_CLOEXEC));
    stay_with(child, signals.get(), [&] {
        signalfd_siginfo info{};
        if (::read(signals.get(), &info, sizeof info) == sizeof info)
            ::kill(child, static_cast<int>(info.ssi_signo));
    });
    const int status = reap(child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : exit_unharmed;
}

void hold_interruptions() {
    sigset_t set;
    sigemptyset(&set);
    for (const int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, s);
    sigprocmask(SIG_BLOCK, &set, nullptr);
}

int interruption() {
    sigset_t set;
    sigpending(&set);
    for (const int s : {SIGINT, SIGTERM, SIGHUP})
        if (sigismember(&set, s) == 1) return s;
    return 0;
}

Status go_on_uninterrupted() {
    if (const int s = interruption())
        return make_error(Code::refused, "go on", {},
                          fmt::format("this command got signal \"{}\"", ::strsignal(s)));
    return {};
}

}  // namespace ghost::tools
