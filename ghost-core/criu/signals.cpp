// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/signals.hpp"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ghost::core {

namespace {

uint64_t bits_of(const sigset_t& set) {
    uint64_t bits = 0;
    for (int s = 1; s <= 64; ++s)
        if (sigismember(&set, s) == 1) bits |= uint64_t{1} << (s - 1);
    return bits;
}

}  // namespace

SignalState SignalState::now() {
    struct sigaction chld {};
    sigaction(SIGCHLD, nullptr, &chld);
    sigset_t set;
    pthread_sigmask(SIG_BLOCK, nullptr, &set);
    return {bits_of(set), chld.sa_handler == SIG_IGN};
}

Result<Signals> Signals::block() {
    Signals out;
    struct sigaction chld {};
    sigaction(SIGCHLD, nullptr, &chld);
    out.chld_ignored_ = chld.sa_handler == SIG_IGN;
    if (out.chld_ignored_) std::signal(SIGCHLD, SIG_DFL);  // else nothing could be waited for
    sigset_t set;
    sigfillset(&set);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) sigdelset(&set, fault);
    sigprocmask(SIG_BLOCK, &set, &out.original_);
    out.fd_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!out.fd_.valid()) return sys_error("make a signal descriptor");
    return out;
}

int Signals::next() const {
    signalfd_siginfo info{};
    while (::read(fd_.get(), &info, sizeof info) == sizeof info) {
        int s = static_cast<int>(info.ssi_signo);
        if (s != SIGCHLD && s != SIGPIPE) return s;
    }
    return 0;
}

SignalState Signals::original() const {
    return {bits_of(original_), chld_ignored_};
}

void Signals::restore() const {
    if (chld_ignored_) std::signal(SIGCHLD, SIG_IGN);
    sigprocmask(SIG_SETMASK, &original_, nullptr);
}

void end_like(int status) {
    if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
    int s = WTERMSIG(status);
    rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);  // also stops a core pattern that is a pipe
    std::signal(s, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, s);
    ::kill(getpid(), s);
    sigprocmask(SIG_UNBLOCK, &set, nullptr);
    _exit(128 + s);
}

}  // namespace ghost::core
