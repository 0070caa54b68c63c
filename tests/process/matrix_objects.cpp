// SPDX-License-Identifier: BSD-3-Clause
// Cases: what the kernel keeps beside files: events, shared memory of both kinds, rings.
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

Check eventfds(const std::string&) {
    static const int count = eventfd(5, 0), other = eventfd(2, EFD_NONBLOCK);
    need(count >= 0 && other >= 0, "eventfd");
    return []() -> std::string {
        eventfd_t value = 0;
        if (eventfd_read(count, &value) != 0 || value != 5) return "another count";
        if (eventfd_read(other, &value) != 0 || value != 2) return "another count";
        return (fcntl(other, F_GETFL) & O_NONBLOCK) != 0 ? "" : "it blocks";
    };
}

Check eventfd_semaphore(const std::string&) {
    static const int fd = eventfd(2, EFD_SEMAPHORE);
    need(fd >= 0, "eventfd");
    return [] { return std::string(); };
}

Check epolls(const std::string&) {
    static const int set = epoll_create1(0), event = eventfd(0, 0);
    static int ends[2];
    need(pipe(ends) == 0, "pipe");
    epoll_event what{};
    what.events = EPOLLIN | EPOLLET;
    what.data.u64 = 0x1234567890abcdefULL;
    need(epoll_ctl(set, EPOLL_CTL_ADD, event, &what) == 0, "epoll_ctl");
    what.events = EPOLLIN;
    what.data.u64 = 2;
    need(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &what) == 0, "epoll_ctl");
    return []() -> std::string {
        epoll_event got[4];
        if (epoll_wait(set, got, 4, 0) != 0) return "an event nobody made";
        eventfd_write(event, 1);
        if (epoll_wait(set, got, 4, 1000) != 1 || got[0].data.u64 != 0x1234567890abcdefULL)
            return "an event is lost";
        if (write(ends[1], "x", 1) != 1) return "pipe";
        return epoll_wait(set, got, 4, 1000) == 1 && got[0].data.u64 == 2 ? "" : "a pipe's event";
    };
}

Check signalfds(const std::string&) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, nullptr);
    static const int fd = signalfd(-1, &mask, 0);
    need(fd >= 0, "signalfd");
    return []() -> std::string {
        kill(getpid(), SIGUSR1);
        signalfd_siginfo info{};
        if (read(fd, &info, sizeof info) != sizeof info) return "nothing comes";
        return differs("signal", info.ssi_signo, SIGUSR1);
    };
}

Check timerfds(const std::string&) {
    static const int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    const itimerspec every{{0, 20000000}, {0, 20000000}};
    need(fd >= 0 && timerfd_settime(fd, 0, &every, nullptr) == 0, "timerfd");
    return []() -> std::string {
        uint64_t fired = 0;
        for (int i = 0; i < 2; i++)
            if (read(fd, &fired, sizeof fired) != sizeof fired || fired == 0) return "it stands";
        itimerspec now{};
        timerfd_gettime(fd, &now);
        return differs("interval", now.it_interval.tv_nsec, 20000000);
    };
}

constexpr size_t area_bytes = 3 << 20;

void fill(char* area, char seed) {
    for (size_t i = 0; i < area_bytes; i++) area[i] = static_cast<char>(seed + i * 31 % 251);
}

std::string compare(const char* area, char seed) {
    for (size_t i = 0; i < area_bytes; i++)
        if (area[i] != static_cast<char>(seed + i * 31 % 251)) return "another content";
    return {};
}

// Whether a write of one process is seen by the other one.
std::string shared_still(char* area) {
    const pid_t child = fork();
    if (child == 0) {
        area[7] = 'S';
        _exit(0);
    }
    waitpid(child, nullptr, 0);
    return area[7] == 'S' ? "" : "not shared any more";
}

Check posix_shared(const std::string&) {
    const std::string name = "/matrix-" + std::to_string(getpid());
    const int fd = shm_open(name.c_str(), O_RDWR | O_CREAT, 0600);
    need(fd >= 0 && ftruncate(fd, area_bytes) == 0, "shm_open");
    static char* area =
        static_cast<char*>(mmap(nullptr, area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    static char* again =
        static_cast<char*>(mmap(nullptr, area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    shm_unlink(name.c_str());
    close(fd);
    fill(area, 3);
    return []() -> std::string {
        if (auto wrong = compare(area, 3); !wrong.empty()) return wrong;
        again[9] = 'X';
        if (area[9] != 'X') return "two mappings of it are two areas now";
        return shared_still(area);
    };
}

// Its name is in this node's /dev/shm.
Check posix_shared_named(const std::string&) {
    const std::string name = "/matrix-named-" + std::to_string(getpid());
    static const int fd = shm_open(name.c_str(), O_RDWR | O_CREAT, 0600);
    need(fd >= 0 && ftruncate(fd, area_bytes) == 0, "shm_open");
    static char* area =
        static_cast<char*>(mmap(nullptr, area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    fill(area, 5);
    return [] { return compare(area, 5); };
}

Check shared_anonymous(const std::string&) {
    static char* area = static_cast<char*>(
        mmap(nullptr, area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    fill(area, 11);
    static const pid_t child = fork();
    if (child == 0) {
        while (area[0] != 'g') usleep(1000);
        area[1] = 'a';
        _exit(0);
    }
    return []() -> std::string {
        const char first = area[0];
        if (auto wrong = compare(area, 11); !wrong.empty()) return wrong;
        area[0] = 'g';
        int status = 0;
        waitpid(child, &status, 0);
        area[0] = first;
        return area[1] == 'a' ? "" : "not shared with the child any more";
    };
}

Check sysv(const std::string&) {
    static const int memory = shmget(IPC_PRIVATE, area_bytes, 0600);
    static char* area = static_cast<char*>(shmat(memory, nullptr, 0));
    need(memory >= 0 && area != reinterpret_cast<char*>(-1), "shmat");
    fill(area, 17);
    static const int semaphore = semget(0x4d41, 2, IPC_CREAT | 0600);
    need(semaphore >= 0 && semctl(semaphore, 1, SETVAL, 9) == 0, "semget");
    static const int queue = msgget(0x4d42, IPC_CREAT | 0600);
    struct Message {
        long type = 3;
        char text[8] = "queued";
    } message;
    need(queue >= 0 && msgsnd(queue, &message, sizeof message.text, 0) == 0, "msgget");
    return []() -> std::string {
        if (auto wrong = compare(area, 17); !wrong.empty()) return wrong;
        if (semget(0x4d41, 2, 0) != semaphore || semctl(semaphore, 1, GETVAL) != 9)
            return "the semaphores";
        Message got;
        if (msgrcv(queue, &got, sizeof got.text, 3, IPC_NOWAIT) != sizeof got.text ||
            std::strcmp(got.text, "queued") != 0)
            return "the message queue";
        auto* other = static_cast<char*>(shmat(memory, nullptr, 0));
        if (other == reinterpret_cast<char*>(-1)) return "the segment's number";
        other[5] = 'V';
        return area[5] == 'V' ? "" : "two areas";
    };
}

Check memory_files(const std::string&) {
    static const int fd = memfd_create("matrix", MFD_ALLOW_SEALING);
    need(fd >= 0 && ftruncate(fd, area_bytes) == 0, "memfd_create");
    static char* area =
        static_cast<char*>(mmap(nullptr, area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    fill(area, 23);
    need(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0, "seal");
    return []() -> std::string {
        if (auto wrong = compare(area, 23); !wrong.empty()) return wrong;
        char byte = 0;
        if (pread(fd, &byte, 1, 100) != 1 || byte != area[100]) return "by its descriptor";
        return differs("seals", fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK);
    };
}

Check ring(const std::string&) {
    io_uring_params params{};
    static const long fd = syscall(SYS_io_uring_setup, 4, &params);
    need(fd >= 0, "io_uring_setup");
    return [] { return std::string(); };
}

Check user_faults(const std::string&) {
    static const long fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    need(fd >= 0, "userfaultfd");
    return [] { return std::string(); };
}

Check message_queue(const std::string&) {
    static const mqd_t queue = mq_open("/ghost_matrix", O_CREAT | O_RDWR, 0600, nullptr);
    need(queue >= 0 && mq_unlink("/ghost_matrix") == 0, "mq_open");
    return [] { return std::string(); };
}

Check secret_memory(const std::string&) {
    static const long fd = syscall(SYS_memfd_secret, O_CLOEXEC);
    need(fd >= 0 && ftruncate(static_cast<int>(fd), 4096) == 0, "memfd_secret");
    return [] { return std::string(); };
}

Check own_terminal(const std::string&) {
    static int master = -1, slave = -1;
    need(openpty(&master, &slave, nullptr, nullptr, nullptr) == 0, "openpty");
    return [] { return std::string(); };
}

}  // namespace

const std::vector<Case> object_cases = {
    {"eventfd", "eventfd", nullptr, eventfds},
    {"eventfd_semaphore", "eventfd with EFD_SEMAPHORE", "an eventfd that is a semaphore",
     eventfd_semaphore},
    {"epoll", "epoll", nullptr, epolls},
    {"signalfd", "signalfd", nullptr, signalfds},
    {"timerfd", "timerfd", nullptr, timerfds},
    {"posix_shared", "POSIX shared memory without a name any more", nullptr, posix_shared},
    {"posix_shared_named", "POSIX shared memory with a name in this node's /dev/shm",
     "import: /dev/shm/matrix-named", posix_shared_named},
    {"shared_anonymous", "shared anonymous memory between processes", nullptr, shared_anonymous},
    {"sysv", "System V shared memory, semaphores, message queues of its own", nullptr, sysv},
    {"memfd", "memfd with seals", nullptr, memory_files},
    {"io_uring", "io_uring", "io_uring", ring},
    {"userfaultfd", "userfaultfd", "userfaultfd", user_faults},
    {"message_queue", "POSIX message queues", "it is a POSIX message queue", message_queue},
    {"memfd_secret", "secret memory (memfd_secret)", "it is secret memory", secret_memory},
    {"own_terminal", "terminals that a process has made (pty)",
     "it is a terminal that the process has made", own_terminal},
};

}  // namespace matrix
