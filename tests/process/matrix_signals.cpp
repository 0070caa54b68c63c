// SPDX-License-Identifier: BSD-3-Clause
// Cases: signals and timers.
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

volatile sig_atomic_t handled = 0, handled_value = 0, ticks = 0;
void* volatile handler_stack = nullptr;

void on_signal(int, siginfo_t* info, void*) {
    handled = handled + 1;
    handled_value = info->si_value.sival_int;
    handler_stack = __builtin_frame_address(0);
}

void on_tick(int) {
    ticks = ticks + 1;
}

Check pending(const std::string&) {
    static sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 3);
    need(sigprocmask(SIG_BLOCK, &set, nullptr) == 0, "block");
    need(kill(getpid(), SIGUSR1) == 0, "kill");
    for (int i = 1; i <= 3; i++) {
        sigval value{};
        value.sival_int = i * 11;
        need(sigqueue(getpid(), SIGRTMIN + 3, value) == 0, "queue");
    }
    return []() -> std::string {
        sigset_t blocked;
        sigprocmask(SIG_BLOCK, nullptr, &blocked);
        if (sigismember(&blocked, SIGUSR1) != 1 || sigismember(&blocked, SIGRTMIN + 3) != 1 ||
            sigismember(&blocked, SIGUSR2) != 0)
            return "another mask";
        const timespec now{};
        siginfo_t info{};
        if (sigtimedwait(&set, &info, &now) != SIGUSR1) return "SIGUSR1 is not pending";
        for (int i = 1; i <= 3; i++) {
            if (sigtimedwait(&set, &info, &now) != SIGRTMIN + 3) return "a queued one is lost";
            if (info.si_value.sival_int != i * 11) return "a queued one has another value";
        }
        return sigtimedwait(&set, &info, &now) < 0 ? "" : "one signal too many";
    };
}

Check handlers(const std::string&) {
    struct sigaction how {};
    how.sa_sigaction = on_signal;
    how.sa_flags = SA_SIGINFO | SA_RESTART;
    sigaddset(&how.sa_mask, SIGHUP);
    need(sigaction(SIGUSR2, &how, nullptr) == 0, "sigaction");
    std::signal(SIGPIPE, SIG_IGN);
    return []() -> std::string {
        struct sigaction now {};
        sigaction(SIGUSR2, nullptr, &now);
        if (now.sa_sigaction != on_signal || (now.sa_flags & SA_RESTART) == 0 ||
            sigismember(&now.sa_mask, SIGHUP) != 1)
            return "another handler";
        sigaction(SIGPIPE, nullptr, &now);
        if (now.sa_handler != SIG_IGN) return "SIGPIPE is not ignored";
        sigval value{};
        value.sival_int = 77;
        sigqueue(getpid(), SIGUSR2, value);
        return handled == 1 && handled_value == 77 ? "" : "the handler was not called rightly";
    };
}

Check alternate_stack(const std::string&) {
    static const size_t size = 65536;
    static char* area = static_cast<char*>(
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    stack_t stack{};
    stack.ss_sp = area;
    stack.ss_size = size;
    need(sigaltstack(&stack, nullptr) == 0, "sigaltstack");
    struct sigaction how {};
    how.sa_sigaction = on_signal;
    how.sa_flags = SA_SIGINFO | SA_ONSTACK;
    need(sigaction(SIGUSR2, &how, nullptr) == 0, "sigaction");
    return []() -> std::string {
        raise(SIGUSR2);
        const char* was = static_cast<char*>(handler_stack);
        return was >= area && was < area + size ? "" : "the handler ran on another stack";
    };
}

std::string ticking(const char* what) {
    const sig_atomic_t before = ticks;
    for (int i = 0; i < 3000 && ticks < before + 3; i++) usleep(1000);
    return ticks >= before + 3 ? "" : std::string(what) + " does not fire any more";
}

Check interval_timer(const std::string&) {
    std::signal(SIGALRM, on_tick);
    const itimerval every{{0, 20000}, {0, 20000}};
    need(setitimer(ITIMER_REAL, &every, nullptr) == 0, "setitimer");
    return []() -> std::string {
        itimerval now{};
        getitimer(ITIMER_REAL, &now);
        if (now.it_interval.tv_usec != 20000) return "another interval";
        return ticking("setitimer");
    };
}

Check posix_timer(const std::string&) {
    static timer_t timer;
    std::signal(SIGRTMIN + 5, on_tick);
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGRTMIN + 5;
    need(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
    const itimerspec every{{0, 20000000}, {0, 20000000}};
    need(timer_settime(timer, 0, &every, nullptr) == 0, "timer_settime");
    return []() -> std::string {
        itimerspec now{};
        if (timer_gettime(timer, &now) != 0) return "the timer is gone";
        if (now.it_interval.tv_nsec != 20000000) return "another interval";
        return ticking("timer_create");
    };
}

int64_t monotonic_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

Check clocks(const std::string&) {
    static const int64_t before = monotonic_ns();
    return []() -> std::string {
        const int64_t now = monotonic_ns();
        if (now < before) return "CLOCK_MONOTONIC went back";
        return now - before < 600'000'000'000 ? "" : "CLOCK_MONOTONIC jumped";
    };
}

}  // namespace

const std::vector<Case> signal_cases = {
    {"pending", "signals blocked and pending, queued with values", nullptr, pending},
    {"handlers", "signal handlers, masks and flags", nullptr, handlers},
    {"alternate_stack", "alternate signal stacks", nullptr, alternate_stack},
    {"interval_timer", "setitimer", nullptr, interval_timer},
    {"posix_timer", "timer_create", nullptr, posix_timer},
    {"clocks", "CLOCK_MONOTONIC goes on", nullptr, clocks},
};

}  // namespace matrix
