// SPDX-License-Identifier: BSD-3-Clause
// A program that waits in system calls with a time limit, for the tests that stop it meanwhile.
//
//   ghost_sleeper MS all       a thread in each of the calls below
//   ghost_sleeper MS live      the same, without those that no live move takes
//   ghost_sleeper MS signals   all, and some that wait without a limit
//   ghost_sleeper MS NAME      no threads: the first one is in this call
//   ghost_sleeper names        says the names of all calls
//
// Each call is made once and is to wait MS milliseconds. When all are over a line for each is
// written to standard output, NAME ERROR US HANDLED: 0 if it took its time (or the errno of its
// end), for how long it lasted, and how many signals its thread has handled. Then it waits until
// the end of standard input. A thread has the name of its call.
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <string>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

int quiet[2];   // a pipe into which nobody writes
int answer[2];  // one into which the handler of SIGUSR2 writes
thread_local int handled = 0;

int64_t now_us(clockid_t clock) {
    timespec t{};
    clock_gettime(clock, &t);
    return int64_t{t.tv_sec} * 1000000 + t.tv_nsec / 1000;
}

timespec as_timespec(int64_t us) {
    return {us / 1000000, us % 1000000 * 1000};
}

timespec in(int64_t us, clockid_t clock) {
    return as_timespec(now_us(clock) + us);
}

// 0 if the call said that the time is over.
int over(long result) {
    return result == 0 ? 0 : result > 0 ? EIO : errno;
}

int by_nanosleep(int64_t us) {
    const timespec time = as_timespec(us);
    timespec rest{};
    return over(syscall(SYS_nanosleep, &time, &rest));
}
int by_clock(int64_t us) {
    const timespec time = as_timespec(us);
    return clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
}
int until_clock(int64_t us) {
    const timespec end = in(us, CLOCK_MONOTONIC);
    return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, nullptr);
}
int by_usleep(int64_t us) {
    return over(usleep(static_cast<useconds_t>(us)));
}
int by_sleep(int64_t us) {
    return sleep(static_cast<unsigned>(us / 1000000)) == 0 ? 0 : EINTR;
}
int by_poll(int64_t us) {
    pollfd nothing{quiet[0], POLLIN, 0};
    return over(poll(&nothing, 1, static_cast<int>(us / 1000)));
}
int by_empty_poll(int64_t us) {
    return over(poll(nullptr, 0, static_cast<int>(us / 1000)));
}
int by_ppoll(int64_t us) {
    pollfd nothing{quiet[0], POLLIN, 0};
    const timespec time = as_timespec(us);
    return over(ppoll(&nothing, 1, &time, nullptr));
}
int by_select(int64_t us) {
    fd_set files;
    FD_ZERO(&files);
    FD_SET(quiet[0], &files);
    timeval time{us / 1000000, us % 1000000};
    return over(select(quiet[0] + 1, &files, nullptr, nullptr, &time));
}
int by_pselect(int64_t us) {
    const timespec time = as_timespec(us);
    sigset_t none;
    sigemptyset(&none);
    return over(pselect(0, nullptr, nullptr, nullptr, &time, &none));
}
int by_semaphore(int64_t us) {
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    const timespec end = in(us, CLOCK_REALTIME);
    const int error = over(sem_timedwait(&semaphore, &end));
    return error == ETIMEDOUT ? 0 : error;
}
int by_condition(int64_t us) {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    const timespec end = in(us, CLOCK_REALTIME);
    pthread_mutex_lock(&mutex);
    const int error = pthread_cond_timedwait(&condition, &mutex, &end);
    pthread_mutex_unlock(&mutex);
    return error == ETIMEDOUT ? 0 : error == 0 ? EAGAIN : error;
}
int by_futex(int64_t us) {
    const timespec time = as_timespec(us);
    int word = 7;
    const int error = over(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 7, &time, nullptr, 0));
    return error == ETIMEDOUT ? 0 : error;
}
int by_epoll(int64_t us) {
    const int set = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{EPOLLIN, {}};
    epoll_ctl(set, EPOLL_CTL_ADD, quiet[0], &event);
    return over(epoll_wait(set, &event, 1, static_cast<int>(us / 1000)));
}
int by_epoll_time(int64_t us) {
    const int set = epoll_create1(EPOLL_CLOEXEC);
    const timespec time = as_timespec(us);
    epoll_event event{};
    return over(syscall(SYS_epoll_pwait2, set, &event, 1, &time, nullptr, 0));
}
int by_sigtimedwait(int64_t us) {
    const timespec time = as_timespec(us);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGWINCH);
    pthread_sigmask(SIG_BLOCK, &one, nullptr);
    const int error = over(sigtimedwait(&one, nullptr, &time));
    return error == EAGAIN ? 0 : error;
}
int by_semtimedop(int64_t us) {
    const timespec time = as_timespec(us);
    const int set = semget(IPC_PRIVATE, 1, 0600);
    sembuf down{0, -1, 0};
    const int error = over(semtimedop(set, &down, 1, &time));
    return error == EAGAIN ? 0 : error;
}
int by_getevents(int64_t us) {
    const timespec time = as_timespec(us);
    aio_context_t context = 0;
    io_event event{};
    if (syscall(SYS_io_setup, 1, &context) != 0) return errno;
    return over(syscall(SYS_io_getevents, context, 1, 1, &event, &time));
}
// Of a time that cannot be written to.
int by_constant_ppoll(int64_t us) {
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *static_cast<timespec*>(page) = as_timespec(us);
    mprotect(page, 4096, PROT_READ);
    pollfd nothing{quiet[0], POLLIN, 0};
    return over(syscall(SYS_ppoll, &nothing, 1, page, nullptr, 0));
}
// At a time of the clock that is not a whole second.
int until_timerfd(int64_t us, clockid_t clock) {
    const int timer = timerfd_create(clock, TFD_CLOEXEC);
    const itimerspec end{{}, in(us, clock)};
    uint64_t ticks = 0;
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &end, nullptr) != 0) return errno;
    const ssize_t got = read(timer, &ticks, sizeof ticks);
    return got < 0 ? errno : ticks == 1 ? 0 : EIO;
}
int until_monotonic_timerfd(int64_t us) {
    return until_timerfd(us, CLOCK_MONOTONIC);
}
int until_real_timerfd(int64_t us) {
    return until_timerfd(us, CLOCK_REALTIME);
}
// A periodic one is not read for so long, and goes on; one that is off stays so.
int by_periods(int64_t us) {
    const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const int off = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const itimerspec period{as_timespec(us / 8), as_timespec(us / 8)}, once{{}, {0, 1}};
    uint64_t ticks = 0, later = 0;
    timerfd_settime(timer, 0, &period, nullptr);
    timerfd_settime(off, TFD_TIMER_ABSTIME, &once, nullptr);
    if (read(off, &ticks, sizeof ticks) != sizeof ticks) return ENODATA;
    if (usleep(static_cast<useconds_t>(us)) != 0) return errno;
    if (read(timer, &ticks, sizeof ticks) != sizeof ticks || ticks < 8) return ENOMSG;
    if (read(off, &later, sizeof later) >= 0) return EALREADY;
    pollfd next{timer, POLLIN, 0};
    if (poll(&next, 1, static_cast<int>(us / 4000)) != 1) return ETIME;
    return 0;
}
// At a time of day; one that ends after a duration is beside it.
int until_timer(int64_t us) {
    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, SIGRTMIN + 3);
    pthread_sigmask(SIG_BLOCK, &mine, nullptr);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMIN + 3;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    timer_t other{}, timer{};
    const itimerspec end{{}, in(us, CLOCK_REALTIME)}, later{{}, as_timespec(us * 100)};
    if (timer_create(CLOCK_REALTIME, &event, &other) != 0 ||
        timer_create(CLOCK_REALTIME, &event, &timer) != 0 ||
        timer_settime(other, 0, &later, nullptr) != 0 ||
        timer_settime(timer, TIMER_ABSTIME, &end, nullptr) != 0)
        return errno;
    return sigwaitinfo(&mine, nullptr) < 0 ? errno : 0;
}
int by_read(int64_t) {
    char byte = 0;
    return read(quiet[0], &byte, 1) < 0 ? errno : EIO;
}
int by_endless_epoll(int64_t) {
    epoll_event event{};
    return epoll_wait(epoll_create1(EPOLL_CLOEXEC), &event, 1, -1) < 0 ? errno : EIO;
}
int by_sigwaitinfo(int64_t) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGWINCH);
    return sigwaitinfo(&one, nullptr) < 0 ? errno : EIO;
}
int by_semop(int64_t) {
    sembuf down{0, -1, 0};
    return semop(semget(IPC_PRIVATE, 1, 0600), &down, 1) < 0 ? errno : EIO;
}
int by_answer(int64_t) {
    char byte = 0;
    return read(answer[0], &byte, 1) == 1 ? 0 : errno;
}

struct Call {
    const char* name;
    int (*make)(int64_t us);
    bool signals_only = false;
    clockid_t clock = CLOCK_MONOTONIC;  // which does not count the time in a ghost
    bool is_restored = false;           // with what a live move refuses
};
constexpr Call calls[] = {{"nanosleep", by_nanosleep},
                          {"clock", by_clock},
                          {"until", until_clock},
                          {"usleep", by_usleep},
                          {"sleep", by_sleep},
                          {"poll", by_poll},
                          {"emptypoll", by_empty_poll},
                          {"ppoll", by_ppoll},
                          {"select", by_select},
                          {"pselect", by_pselect},
                          {"semaphore", by_semaphore, false, CLOCK_REALTIME},
                          {"condition", by_condition, false, CLOCK_REALTIME},
                          {"futex", by_futex},
                          {"epoll", by_epoll},
                          {"epolltime", by_epoll_time},
                          {"sigtimedwait", by_sigtimedwait},
                          {"semtimedop", by_semtimedop},
                          {"getevents", by_getevents, false, CLOCK_MONOTONIC, true},
                          {"constppoll", by_constant_ppoll},
                          {"timerfd", until_monotonic_timerfd, false, CLOCK_MONOTONIC, true},
                          {"realtimerfd", until_real_timerfd, false, CLOCK_REALTIME, true},
                          {"realtimer", until_timer, false, CLOCK_REALTIME, true},
                          {"periods", by_periods, false, CLOCK_MONOTONIC, true},
                          {"read", by_read, true},
                          {"endless", by_endless_epoll, true},
                          {"sigwaitinfo", by_sigwaitinfo, true},
                          {"semop", by_semop, true},
                          {"answer", by_answer, true}};

std::string measured(const Call& call, int64_t us) {
    const int64_t begin = now_us(call.clock);
    const int error = call.make(us);
    const int64_t took = now_us(call.clock) - begin;
    return std::string(call.name) + " " + std::to_string(error) + " " + std::to_string(took) + " " +
           std::to_string(handled);
}

void set_handlers() {
    struct sigaction action {};
    action.sa_handler = [](int) { handled = handled + 1; };
    sigaction(SIGUSR1, &action, nullptr);
    action.sa_handler = [](int) {
        handled = handled + 1;
        if (write(answer[1], "x", 1) != 1) _exit(4);
    };
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR2, &action, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
    // The init of a tree, whose semaphores are its own.
    if (getpid() == 1 && (setsid() < 0 || unshare(CLONE_NEWIPC) != 0)) return 2;
    if (argc == 2 && std::strcmp(argv[1], "names") == 0) {
        for (const auto& call : calls)
            if (!call.signals_only) std::puts(call.name);
        return 0;
    }
    if (argc != 3 || pipe(quiet) != 0 || pipe(answer) != 0) return 2;
    set_handlers();
    const int64_t us = std::atoll(argv[1]) * 1000;
    const std::string what = argv[2];
    std::vector<std::string> lines;
    std::vector<std::thread> threads;
    if (what == "all" || what == "live" || what == "signals") {
        lines.resize(sizeof calls / sizeof *calls);
        for (size_t i = 0; i < lines.size(); i++) {
            if (calls[i].signals_only && what != "signals") continue;
            if (calls[i].is_restored && what == "live") continue;
            threads.emplace_back([&lines, i, us] {
                pthread_setname_np(pthread_self(), calls[i].name);
                lines[i] = measured(calls[i], us);
            });
        }
        for (auto& thread : threads) thread.join();
    } else {
        for (const auto& call : calls)
            if (what == call.name) {
                pthread_setname_np(pthread_self(), call.name);
                lines.push_back(measured(call, us));
            }
    }
    for (const auto& line : lines)
        if (!line.empty()) std::puts(line.c_str());
    std::puts("end");
    std::fflush(stdout);
    for (char byte = 0; read(0, &byte, 1) > 0;) continue;
    return 0;
}
