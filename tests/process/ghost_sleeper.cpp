// SPDX-License-Identifier: BSD-3-Clause
// A program that waits in system calls with a time limit, for the tests that stop it meanwhile.
//
//   ghost_sleeper MS all       a thread in each of the calls below
//   ghost_sleeper MS live      the same, without those that no live move takes
//   ghost_sleeper MS signals   all, and some that wait without a limit
//   ghost_sleeper MS here      all, and those that no ghost takes, or not beside the original
//   ghost_sleeper MS NAME      no threads: the first one is in this call
//   ghost_sleeper names WHAT   says the names of all calls of that kind
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
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <string>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
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
// Of the socket, for one direction (SO_RCVTIMEO, SO_SNDTIMEO).
void set_limit(int socket, int which, int64_t us) {
    const timeval limit{us / 1000000, us % 1000000};
    setsockopt(socket, SOL_SOCKET, which, &limit, sizeof limit);
}
// 0 if the call said that the time is over, and the socket's limit is what it was.
int over_on(int socket, int which, int64_t us, long result, int expected = EAGAIN) {
    const int error = result >= 0 ? EIO : errno;
    timeval limit{};
    socklen_t size = sizeof limit;
    if (error != expected) return error;
    if (getsockopt(socket, SOL_SOCKET, which, &limit, &size) != 0) return errno;
    return int64_t{limit.tv_sec} * 1000000 + limit.tv_usec == us ? 0 : EDOM;
}
struct Pair {
    int ends[2] = {-1, -1};
    explicit Pair(int type) { socketpair(AF_UNIX, type, 0, ends); }
};
int by_recv(int64_t us) {
    const Pair pair(SOCK_STREAM);
    char byte = 0;
    set_limit(pair.ends[0], SO_RCVTIMEO, us);
    return over_on(pair.ends[0], SO_RCVTIMEO, us, recv(pair.ends[0], &byte, 1, 0));
}
int by_recvmsg(int64_t us) {
    const Pair pair(SOCK_DGRAM);
    char byte = 0;
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    set_limit(pair.ends[0], SO_RCVTIMEO, us);
    return over_on(pair.ends[0], SO_RCVTIMEO, us, recvmsg(pair.ends[0], &message, 0));
}
int by_socket_read(int64_t us) {
    const Pair pair(SOCK_SEQPACKET);
    char byte = 0;
    set_limit(pair.ends[0], SO_RCVTIMEO, us);
    return over_on(pair.ends[0], SO_RCVTIMEO, us, read(pair.ends[0], &byte, 1));
}
int by_udp(int64_t us) {
    const int end = socket(AF_INET, SOCK_DGRAM, 0);
    char byte = 0;
    set_limit(end, SO_RCVTIMEO, us);
    return over_on(end, SO_RCVTIMEO, us, recvfrom(end, &byte, 1, 0, nullptr, nullptr));
}
void fill(int socket) {
    const char bytes[1024] = "";
    while (send(socket, bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
}
int by_send(int64_t us) {
    const Pair pair(SOCK_STREAM);
    fill(pair.ends[0]);
    set_limit(pair.ends[0], SO_SNDTIMEO, us);
    const char bytes[4096] = "";
    return over_on(pair.ends[0], SO_SNDTIMEO, us, send(pair.ends[0], bytes, sizeof bytes, 0));
}
int by_socket_write(int64_t us) {
    const Pair pair(SOCK_DGRAM);
    fill(pair.ends[0]);
    set_limit(pair.ends[0], SO_SNDTIMEO, us);
    return over_on(pair.ends[0], SO_SNDTIMEO, us, write(pair.ends[0], "x", 1));
}
// Two on one socket, the other one a little later.
int by_two(int64_t us) {
    const Pair pair(SOCK_DGRAM);
    set_limit(pair.ends[0], SO_RCVTIMEO, us);
    const auto receive = [&pair, us] {
        const int64_t begin = now_us(CLOCK_MONOTONIC);
        char byte = 0;
        const int error = over_on(pair.ends[0], SO_RCVTIMEO, us, recv(pair.ends[0], &byte, 1, 0));
        const int64_t took = now_us(CLOCK_MONOTONIC) - begin;
        return error != 0 ? error : took < us ? ETIME : took > us * 4 / 3 ? ERANGE : 0;
    };
    int later = 0;
    std::thread other([&] {
        pthread_setname_np(pthread_self(), "ghost_sleeper");
        usleep(static_cast<useconds_t>(us / 16));
        later = receive();
    });
    const int first = receive();
    other.join();
    return first != 0 ? first : later;
}
// What it has got before is the answer.
int by_part(int64_t us) {
    const Pair pair(SOCK_STREAM);
    char bytes[2] = "";
    set_limit(pair.ends[0], SO_RCVTIMEO, us);
    if (write(pair.ends[1], "x", 1) != 1) return errno;
    const auto got = recv(pair.ends[0], bytes, sizeof bytes, MSG_WAITALL);
    return got == 1 && bytes[0] == 'x' ? 0 : got < 0 ? errno : EIO;
}
sockaddr_in listen_at(int socket) {
    sockaddr_in at{};
    socklen_t size = sizeof at;
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(socket, reinterpret_cast<sockaddr*>(&at), sizeof at);
    listen(socket, 0);
    getsockname(socket, reinterpret_cast<sockaddr*>(&at), &size);
    return at;
}
int by_accept(int64_t us) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    listen_at(listener);
    set_limit(listener, SO_RCVTIMEO, us);
    return over_on(listener, SO_RCVTIMEO, us, accept(listener, nullptr, nullptr));
}
// To one that has as many waiting as it may have. A connect that is made again says EALREADY.
int by_connect(int64_t us) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    const int first = socket(AF_INET, SOCK_STREAM, 0), next = socket(AF_INET, SOCK_STREAM, 0);
    const auto at = listen_at(listener);
    const auto connect_it = [&at](int which) {
        return connect(which, reinterpret_cast<const sockaddr*>(&at), sizeof at);
    };
    if (connect_it(first) != 0) return errno;
    set_limit(next, SO_SNDTIMEO, us);
    return over_on(next, SO_SNDTIMEO, us, connect_it(next), EALREADY);
}
struct Connection {
    int ends[2] = {-1, -1};
    Connection() {
        const int listener = socket(AF_INET, SOCK_STREAM, 0);
        const auto at = listen_at(listener);
        const int little = 4096;  // and no more as it fills
        ends[1] = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(ends[1], SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
        if (connect(ends[1], reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0)
            ends[0] = accept(listener, nullptr, nullptr);
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    }
};
int by_tcp_recv(int64_t us) {
    const Connection connection;
    char byte = 0;
    set_limit(connection.ends[0], SO_RCVTIMEO, us);
    return over_on(connection.ends[0], SO_RCVTIMEO, us, recv(connection.ends[0], &byte, 1, 0));
}
int by_tcp_send(int64_t us) {
    const Connection connection;
    fill(connection.ends[0]);
    set_limit(connection.ends[0], SO_SNDTIMEO, us);
    int64_t begin = 0;
    ssize_t sent = 0;
    do {  // the other end still makes a little room
        begin = now_us(CLOCK_MONOTONIC);
        sent = send(connection.ends[0], "x", 1, 0);
    } while (sent > 0);
    const int error = over_on(connection.ends[0], SO_SNDTIMEO, us, sent);
    return error == 0 && now_us(CLOCK_MONOTONIC) - begin < us ? ETIME : error;
}
int by_splice(int64_t us) {
    const Connection connection;
    int to[2];
    if (pipe(to) != 0) return errno;
    set_limit(connection.ends[0], SO_RCVTIMEO, us);
    return over_on(connection.ends[0], SO_RCVTIMEO, us,
                   splice(connection.ends[0], nullptr, to[1], nullptr, 1, 0));
}
int until_futex(int64_t us) {
    const timespec end = in(us, CLOCK_MONOTONIC);
    int word = 7;
    const int error = over(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 7, &end, nullptr,
                                   FUTEX_BITSET_MATCH_ANY));
    return error == ETIMEDOUT ? 0 : error;
}
// A lock that another thread has.
int by_lock(int64_t us, int protocol) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setprotocol(&kind, protocol);
    pthread_mutex_t mutex;
    pthread_mutex_init(&mutex, &kind);
    sem_t locked, over;
    sem_init(&locked, 0, 0);
    sem_init(&over, 0, 0);
    std::thread owner([&] {
        pthread_setname_np(pthread_self(), "ghost_sleeper");
        pthread_mutex_lock(&mutex);
        sem_post(&locked);
        while (sem_wait(&over) != 0) continue;
        pthread_mutex_unlock(&mutex);
    });
    while (sem_wait(&locked) != 0) continue;
    const timespec end = in(us, CLOCK_REALTIME);
    const int error = pthread_mutex_timedlock(&mutex, &end);
    sem_post(&over);
    owner.join();
    return error == ETIMEDOUT ? 0 : error == 0 ? EIO : error;
}
int by_plain_lock(int64_t us) {
    return by_lock(us, PTHREAD_PRIO_NONE);
}
int by_inheriting_lock(int64_t us) {
    return by_lock(us, PTHREAD_PRIO_INHERIT);
}
int by_clock_condition(int64_t us) {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    const timespec end = in(us, CLOCK_MONOTONIC);
    pthread_mutex_lock(&mutex);
    const int error = pthread_cond_clockwait(&condition, &mutex, CLOCK_MONOTONIC, &end);
    pthread_mutex_unlock(&mutex);
    return error == ETIMEDOUT ? 0 : error == 0 ? EAGAIN : error;
}
sigset_t usual_signals() {
    sigset_t out;
    pthread_sigmask(SIG_SETMASK, nullptr, &out);
    return out;
}
int by_masked_ppoll(int64_t us) {
    pollfd nothing{quiet[0], POLLIN, 0};
    const timespec time = as_timespec(us);
    const sigset_t mask = usual_signals();
    return over(ppoll(&nothing, 1, &time, &mask));
}
int by_masked_epoll(int64_t us) {
    epoll_event event{};
    const sigset_t mask = usual_signals();
    return over(
        epoll_pwait(epoll_create1(EPOLL_CLOEXEC), &event, 1, static_cast<int>(us / 1000), &mask));
}
mqd_t queue(const char* name) {
    mq_attr attributes{};
    attributes.mq_maxmsg = attributes.mq_msgsize = 1;
    const mqd_t out = mq_open(name, O_CREAT | O_RDWR, 0600, &attributes);
    mq_unlink(name);
    return out;
}
int by_mq_receive(int64_t us) {
    const timespec end = in(us, CLOCK_REALTIME);
    char byte = 0;
    const int error = over(mq_timedreceive(queue("/ghost_in"), &byte, 1, nullptr, &end));
    return error == ETIMEDOUT ? 0 : error;
}
int by_mq_send(int64_t us) {
    const timespec end = in(us, CLOCK_REALTIME);
    const mqd_t full = queue("/ghost_out");
    mq_send(full, "x", 1, 0);
    const int error = over(mq_timedsend(full, "x", 1, 0, &end));
    return error == ETIMEDOUT ? 0 : error;
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
int by_pause(int64_t) {
    pause();
    return errno;
}
int by_sigsuspend(int64_t) {
    const sigset_t mask = usual_signals();
    sigsuspend(&mask);
    return errno;
}
int by_msgrcv(int64_t) {
    char message[16] = "";
    return msgrcv(msgget(IPC_PRIVATE, 0600), message, 1, 0, 0) < 0 ? errno : EIO;
}
int by_inotify(int64_t) {
    char event[256];
    return read(inotify_init1(IN_CLOEXEC), event, sizeof event) < 0 ? errno : EIO;
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
    bool is_here = false;               // no ghost takes it, or not beside the original
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
                          {"recv", by_recv, false, CLOCK_MONOTONIC, true},
                          {"recvmsg", by_recvmsg, false, CLOCK_MONOTONIC, true},
                          {"sockread", by_socket_read, false, CLOCK_MONOTONIC, true},
                          {"udp", by_udp, false, CLOCK_MONOTONIC, true},
                          {"send", by_send, false, CLOCK_MONOTONIC, true, true},
                          {"sockwrite", by_socket_write, false, CLOCK_MONOTONIC, true},
                          {"two", by_two, false, CLOCK_MONOTONIC, true},
                          {"untilfutex", until_futex},
                          {"lock", by_plain_lock, false, CLOCK_REALTIME},
                          {"pilock", by_inheriting_lock, false, CLOCK_REALTIME},
                          {"clockcond", by_clock_condition},
                          {"maskppoll", by_masked_ppoll},
                          {"maskepoll", by_masked_epoll},
                          {"accept", by_accept, false, CLOCK_MONOTONIC, true, true},
                          {"connect", by_connect, false, CLOCK_MONOTONIC, true, true},
                          {"tcprecv", by_tcp_recv, false, CLOCK_MONOTONIC, true, true},
                          {"tcpsend", by_tcp_send, false, CLOCK_MONOTONIC, true, true},
                          {"splice", by_splice, false, CLOCK_MONOTONIC, true, true},
                          {"mqreceive", by_mq_receive, false, CLOCK_REALTIME, true, true},
                          {"mqsend", by_mq_send, false, CLOCK_REALTIME, true, true},
                          {"pause", by_pause, true},
                          {"sigsuspend", by_sigsuspend, true},
                          {"msgrcv", by_msgrcv, true},
                          {"inotify", by_inotify, true},
                          {"part", by_part, true, CLOCK_MONOTONIC, true, true},
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

// Whether it is one of those that are meant by the word.
bool is_of(const Call& call, const std::string& what) {
    if (what == "signals") return !call.is_here;
    if (call.signals_only) return false;
    return what == "here" || (what == "all" && !call.is_here) ||
           (what == "live" && !call.is_here && !call.is_restored);
}

bool is_kind(const std::string& what) {
    return what == "all" || what == "live" || what == "signals" || what == "here";
}

int main(int argc, char** argv) {
    // The init of a tree, whose semaphores are its own.
    if (getpid() == 1 && (setsid() < 0 || unshare(CLONE_NEWIPC) != 0)) return 2;
    if (argc == 3 && std::strcmp(argv[1], "names") == 0) {
        for (const auto& call : calls)
            if (is_of(call, argv[2])) std::puts(call.name);
        return 0;
    }
    if (argc != 3 || pipe(quiet) != 0 || pipe(answer) != 0) return 2;
    set_handlers();
    const int64_t us = std::atoll(argv[1]) * 1000;
    const std::string what = argv[2];
    std::vector<std::string> lines;
    std::vector<std::thread> threads;
    if (is_kind(what)) {
        lines.resize(sizeof calls / sizeof *calls);
        for (size_t i = 0; i < lines.size(); i++) {
            if (!is_of(calls[i], what)) continue;
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
