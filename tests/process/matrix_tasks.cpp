// SPDX-License-Identifier: BSD-3-Clause
// Cases: threads, processes, who they are and what they may.
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <grp.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <memory>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

pid_t self_tid() {
    return static_cast<pid_t>(syscall(SYS_gettid));
}

// A child that answers one question with one number when it is asked.
struct Child {
    pid_t pid = 0;
    int ask = -1, answer = -1;

    static Child start(const std::function<void()>& begin, const std::function<long()>& answer) {
        int question[2], reply[2];
        need(pipe(question) == 0 && pipe(reply) == 0, "pipe");
        Child out;
        out.pid = fork();
        need(out.pid >= 0, "fork");
        if (out.pid == 0) {
            close(question[1]);
            close(reply[0]);
            begin();
            char go = 0;
            long value = 0;
            if (write(reply[1], &value, sizeof value) != sizeof value) _exit(1);
            if (read(question[0], &go, 1) != 1) _exit(1);
            value = answer();
            if (write(reply[1], &value, sizeof value) != sizeof value) _exit(1);
            _exit(0);
        }
        close(question[0]);
        close(reply[1]);
        out.ask = question[1];
        out.answer = reply[0];
        long begun = 0;
        need(read(out.answer, &begun, sizeof begun) == sizeof begun, "child begins");
        return out;
    }
    long get() const {
        long value = -1;
        if (write(ask, "q", 1) != 1 || read(answer, &value, sizeof value) != sizeof value)
            return -1;
        waitpid(pid, nullptr, 0);
        return value;
    }
};

// What each thread has of its own in the kernel.
struct OwnValues {
    static constexpr int with_privileges = 3, with_groups = 5, without_groups = 6, with_signal = 7;
    static constexpr int other_signal = SIGURG;
    static constexpr int auto_disarm = INT_MIN;  // SS_AUTODISARM of linux/signal.h

    explicit OwnValues(int which) : which_(which) {
        stack_.ss_sp = &room_;
        stack_.ss_size = sizeof room_;
        stack_.ss_flags = which % 2 == 0 ? 0 : auto_disarm;
        need(which == 0 || sigaltstack(&stack_, nullptr) == 0, "stack for signals");
        if (which == with_privileges)
            need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
        const gid_t group = 4711;  // the C library would set it for all threads
        const bool root = geteuid() == 0;
        if (root && which == with_groups)
            need(syscall(SYS_setgroups, 1, &group) == 0, "group of a thread");
        if (root && which == without_groups)
            need(syscall(SYS_setgroups, 0, nullptr) == 0, "no group of a thread");
        if (which == with_signal) need(prctl(PR_SET_PDEATHSIG, other_signal) == 0, "death signal");
        groups_ = groups();
    }
    // What has changed; null: nothing.
    const char* changed() const {
        stack_t now{};
        sigaltstack(nullptr, &now);
        const bool same_stack = which_ == 0
                                    ? now.ss_flags == SS_DISABLE
                                    : now.ss_sp == stack_.ss_sp && now.ss_size == stack_.ss_size &&
                                          now.ss_flags == stack_.ss_flags;
        if (!same_stack) return "its stack for signals";
        int signal = 0;
        prctl(PR_GET_PDEATHSIG, &signal);
        if ((signal == other_signal) != (which_ == with_signal)) return "its death signal";
        if ((prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) != (which_ == with_privileges))
            return "no_new_privs";
        return groups() == groups_ ? nullptr : "its groups";
    }

  private:
    static std::vector<gid_t> groups() {
        std::vector<gid_t> out(static_cast<size_t>(getgroups(0, nullptr)));
        out.resize(static_cast<size_t>(getgroups(static_cast<int>(out.size()), out.data())));
        return out;
    }

    const int which_;
    stack_t stack_{};
    std::vector<gid_t> groups_;
    alignas(16) char room_[16384];
};

Check threads(const std::string&) {
    struct Worker {
        std::thread thread;
        std::atomic<long> count{0};
        std::atomic<pid_t> tid{0}, before{0};
        std::atomic<bool> wrong{false};
        std::atomic<const char*> changed{nullptr};
    };
    static std::array<Worker, 12> workers;
    static thread_local long own = 0;
    for (size_t i = 0; i < workers.size(); i++)
        workers[i].thread = std::thread([i] {
            Worker& me = workers[i];
            own = static_cast<long>(i) * 1000003;
            pthread_setname_np(pthread_self(), ("worker" + std::to_string(i)).c_str());
            me.before = self_tid();
            const auto values = std::make_unique<OwnValues>(static_cast<int>(i));
            for (;;) {
                me.tid = self_tid();
                me.count++;
                char name[16] = {};
                pthread_getname_np(pthread_self(), name, sizeof name);
                if (own != static_cast<long>(i) * 1000003 || name != "worker" + std::to_string(i))
                    me.wrong = true;
                me.changed = values->changed();
                usleep(5000);
            }
        });
    for (auto& worker : workers)
        while (worker.count == 0) usleep(100);
    return []() -> std::string {
        for (auto& worker : workers) {
            const long before = worker.count;
            for (int i = 0; i < 3000 && worker.count < before + 2; i++) usleep(1000);
            if (worker.count < before + 2) return "a thread stands still";
            if (worker.tid != worker.before) return "a thread has another number";
            if (worker.wrong) return "a thread lost its name or its own variable";
            if (const char* what = worker.changed)
                return std::string("of a thread changed: ") + what;
        }
        return {};
    };
}

Check openmp(const std::string&) {
    static const auto sum = [] {
        double total = 0;
#pragma omp parallel for num_threads(4) reduction(+ : total)
        for (int i = 0; i < 100000; i++) total += 1.0 / (1 + i % 97);
        return total;
    };
    static double before = sum();
    static int team = omp_get_max_threads();
    return []() -> std::string {
        const double now = sum();
        if (now > before * 1.000001 || now < before * 0.999999) return "another sum";
        return differs("threads of a team", omp_get_max_threads(), team);
    };
}

// Every process has one child and passes a number on to it; the last one sends it back.
[[noreturn]] void descend(long left, int in, const int out) {
    int down[2] = {-1, -1};
    pid_t parent = getppid();
    for (; left > 0; left--, parent = getppid(), in = down[0]) {
        need(pipe(down) == 0, "pipe");
        if (fork() != 0) break;
    }
    if (left == 0 && write(out, "ready", 5) != 5) _exit(1);
    long value = 0;
    if (read(in, &value, sizeof value) != sizeof value) _exit(1);
    value += getppid() == parent ? 1 : 1000000;
    if (write(left > 0 ? down[1] : out, &value, sizeof value) != sizeof value) _exit(1);
    if (left > 0) wait(nullptr);
    _exit(0);
}

Check deep_tree(const std::string&) {
    constexpr long depth = 40;
    static int ask[2], answer[2];
    need(pipe(ask) == 0 && pipe(answer) == 0, "pipe");
    if (fork() == 0) descend(depth - 1, ask[0], answer[1]);
    char ready[5];
    need(read(answer[0], ready, 5) == 5, "the deepest process");
    return []() -> std::string {
        long value = 0;
        if (write(ask[1], &value, sizeof value) != sizeof value) return "cannot ask";
        if (read(answer[0], &value, sizeof value) != sizeof value) return "no answer";
        return differs("processes that answered", value, depth);
    };
}

Check sessions(const std::string&) {
    static const auto leader =
        Child::start([] { need(setsid() > 0, "setsid"); },
                     [] { return long{getsid(0) == getpid() && getpgrp() == getpid()}; });
    static const auto grouped =
        Child::start([] { need(setpgid(0, 0) == 0, "setpgid"); },
                     [] { return long{getpgrp() == getpid() && getsid(0) != getpid()}; });
    static const auto member =
        Child::start([] { need(setpgid(0, grouped.pid) == 0, "setpgid of another"); },
                     [] { return long{getpgrp()}; });
    static const pid_t session = getsid(0);
    return []() -> std::string {
        if (member.get() != grouped.pid) return "a process has left its group";
        if (leader.get() != 1) return "a session leader is none any more";
        if (grouped.get() != 1) return "a group leader is none any more";
        return differs("session", getsid(0), session);
    };
}

Check zombie(const std::string&) {
    static const pid_t child = fork();
    if (child == 0) _exit(42);
    siginfo_t info{};
    need(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0, "wait");
    return []() -> std::string {
        int status = 0;
        if (waitpid(child, &status, 0) != child) return "the zombie is gone";
        return differs("its exit status", WEXITSTATUS(status), 42);
    };
}

// By SIGSTOP; whoever has stopped it lets it go on.
Check stopped(const std::string&) {
    static const auto child = Child::start([] {}, [] { return 42L; });
    const auto id = static_cast<id_t>(child.pid);
    siginfo_t info{};
    need(kill(child.pid, SIGSTOP) == 0 && waitid(P_PID, id, &info, WSTOPPED) == 0, "stop");
    return [id]() -> std::string {
        std::ifstream in("/proc/" + std::to_string(child.pid) + "/stat");
        std::string number, name, state;
        in >> number >> name >> state;
        if (state != "T") return "it is not stopped: " + state;
        siginfo_t now{};
        if (waitid(P_PID, id, &now, WCONTINUED | WNOHANG) != 0 || now.si_pid != 0)
            return "it has gone on meanwhile";
        kill(child.pid, SIGCONT);
        return differs("its answer", child.get(), 42);
    };
}

bool may_see_limits() {
    return geteuid() == 0 && prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE, 0, 0, 0) == 1;
}

Check credentials(const std::string&) {
    static const auto child = Child::start(
        [] {
            const gid_t groups[] = {4001, 4002, 4003};
            need(geteuid() != 0 || setgroups(3, groups) == 0, "groups");
            if (may_see_limits()) need(setresgid(3001, 3002, 3003) == 0, "group");
            need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
            // Without this right nobody may look at the limits of another user's process.
            if (may_see_limits()) need(setresuid(2001, 2002, 2003) == 0, "users");
            umask(0137);
        },
        [] {
            uid_t u[3];
            gid_t g[3], more[8];
            getresuid(&u[0], &u[1], &u[2]);
            getresgid(&g[0], &g[1], &g[2]);
            const bool others = may_see_limits();
            if (others && (u[0] != 2001 || u[1] != 2002 || u[2] != 2003)) return 1L;
            if (others && (g[0] != 3001 || g[1] != 3002 || g[2] != 3003)) return 2L;
            if (geteuid() == 0 && (getgroups(8, more) != 3 || more[2] != 4003)) return 3L;
            if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) return 4L;
            if (umask(0) != 0137) return 5L;
            return others && setresuid(0, 0, 0) == 0 ? 6L : 0L;
        });
    return [] { return differs("credential that is wrong", child.get(), 0); };
}

Check limits(const std::string&) {
    static const std::array<std::pair<__rlimit_resource, rlimit>, 5> wanted = {{
        {RLIMIT_NOFILE, {100, 200}},
        {RLIMIT_CORE, {0, 4096}},
        {RLIMIT_STACK, {4 << 20, 8 << 20}},
        {RLIMIT_CPU, {1000, 2000}},
        {RLIMIT_NPROC, {5000, 6000}},
    }};
    for (const auto& [what, value] : wanted) need(setrlimit(what, &value) == 0, "setrlimit");
    return []() -> std::string {
        for (const auto& [what, value] : wanted) {
            rlimit now{};
            getrlimit(what, &now);
            if (now.rlim_cur != value.rlim_cur || now.rlim_max != value.rlim_max)
                return "limit " + std::to_string(what);
        }
        return {};
    };
}

std::string whole(const char* path) {
    std::ifstream in(path);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

Check environment(const std::string&) {
    setenv("MATRIX_SET_LATER", "a value with = and spaces", 1);
    prctl(PR_SET_NAME, "matrix-name");
    static const std::string environ_before = whole("/proc/self/environ"),
                             line_before = whole("/proc/self/cmdline");
    return []() -> std::string {
        const char* set = getenv("MATRIX_SET_LATER");
        if (set == nullptr || std::strcmp(set, "a value with = and spaces") != 0)
            return "a variable is lost";
        if (whole("/proc/self/environ") != environ_before) return "/proc/self/environ differs";
        if (whole("/proc/self/cmdline") != line_before) return "/proc/self/cmdline differs";
        char name[16] = {};
        prctl(PR_GET_NAME, name);
        return std::strcmp(name, "matrix-name") == 0 ? "" : "its name differs";
    };
}

// Where a process runs in the hierarchy of control groups is the node's matter: the importer's.
Check cgroups(const std::string&) {
    return []() -> std::string {
        const auto own = whole("/proc/self/cgroup");
        if (own.empty()) return "no control group";
        char path[64];
        std::ifstream stat("/proc/self/stat");
        std::string text((std::istreambuf_iterator<char>(stat)), {});
        const int parent = std::atoi(text.c_str() + text.rfind(')') + 4);
        std::snprintf(path, sizeof path, "/proc/%d/cgroup", parent);
        return whole(path) == own ? "" : "not in the control group of its init";
    };
}

Check restartable_sequences(const std::string&) {
    static const auto* area = reinterpret_cast<const struct rseq*>(
        static_cast<const char*>(__builtin_thread_pointer()) + __rseq_offset);
    need(__rseq_size > 0, "the C library has no rseq");
    return []() -> std::string {
        for (int i = 0; i < 1000; i++) {
            const auto said =
                static_cast<int>(*const_cast<volatile const uint32_t*>(&area->cpu_id));
            if (said == sched_getcpu()) return {};
        }
        return "the kernel does not keep the area any more";
    };
}

Check robust_futexes(const std::string&) {
    static auto* mutex = static_cast<pthread_mutex_t*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pthread_mutexattr_t how;
    pthread_mutexattr_init(&how);
    pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &how);
    // The owner dies only at the other node; its robust list has to be known there.
    static const auto owner = Child::start([] { pthread_mutex_lock(mutex); }, [] { return 7L; });
    return []() -> std::string {
        if (pthread_mutex_trylock(mutex) != EBUSY) return "the lock was lost on the way";
        if (owner.get() != 7) return "the owner does not answer";
        return differs("lock of a dead owner", pthread_mutex_lock(mutex), EOWNERDEAD);
    };
}

#if defined(__x86_64__)
// A thread holds values in vector and control registers all the way.
struct Vectors {
    alignas(32) std::array<uint64_t, 32> put, got;
    volatile int go = 0;
    volatile int up = 0;
    uint32_t control = 0;
    uint16_t x87 = 0;
};
Vectors vectors;

__attribute__((target("avx"))) void hold_registers() {
    uint32_t control = 0x1f80 | 0x6000;  // MXCSR: round towards zero
    uint16_t x87 = 0x0f7f;
    asm volatile("ldmxcsr %0\n fldcw %1" ::"m"(control), "m"(x87));
    asm volatile(
        "vmovdqa (%0), %%ymm0\n vmovdqa 32(%0), %%ymm5\n"
        "vmovdqa 64(%0), %%ymm10\n vmovdqa 96(%0), %%ymm15\n"
        "movl $1, (%3)\n"
        "1: pause\n cmpl $0, (%2)\n je 1b\n"
        "vmovdqa %%ymm0, (%1)\n vmovdqa %%ymm5, 32(%1)\n"
        "vmovdqa %%ymm10, 64(%1)\n vmovdqa %%ymm15, 96(%1)\n"
        :
        : "r"(vectors.put.data()), "r"(vectors.got.data()), "r"(&vectors.go), "r"(&vectors.up)
        : "memory", "xmm0", "xmm5", "xmm10", "xmm15");
    asm volatile("stmxcsr %0\n fnstcw %1" : "=m"(vectors.control), "=m"(vectors.x87));
}

Check floating_point(const std::string&) {
    static std::thread holder;
    if (!__builtin_cpu_supports("avx")) return [] { return std::string(); };
    for (size_t i = 0; i < vectors.put.size(); i++)
        vectors.put[i] = 0x9e3779b97f4a7c15ULL * (i + 1);
    holder = std::thread([] {
        setpriority(PRIO_PROCESS, 0, 19);  // of this thread: it has only what others leave
        hold_registers();
    });
    while (vectors.up == 0) usleep(100);
    return []() -> std::string {
        vectors.go = 1;
        holder.join();
        for (size_t i = 0; i < 16; i++)
            if (vectors.got[i] != vectors.put[i]) return "a vector register changed";
        if ((vectors.control & 0x6000) != 0x6000) return "MXCSR changed";
        return differs("x87 control word", vectors.x87, 0x0f7f);
    };
}
#else
Check floating_point(const std::string&) {
    return [] { return std::string(); };
}
#endif

}  // namespace

const std::vector<Case> task_cases = {
    {"threads", "threads with their numbers, names and variables", nullptr, threads},
    {"openmp", "OpenMP teams", nullptr, openmp},
    {"deep_tree", "a tree 40 processes deep", nullptr, deep_tree},
    {"sessions", "sessions and process groups", nullptr, sessions},
    {"zombie", "ended children that nobody has waited for", nullptr, zombie},
    {"stopped", "processes stopped by SIGSTOP: stopped afterwards (of a rank: its children)",
     nullptr, stopped},
    {"credentials", "users, groups, no_new_privs, umask (other users: needs CAP_SYS_RESOURCE)",
     nullptr, credentials},
    {"limits", "resource limits", nullptr, limits},
    {"environment", "environment, command line, name", nullptr, environment},
    {"cgroups", "control groups: those of the importer", nullptr, cgroups},
    {"rseq", "restartable sequences", nullptr, restartable_sequences},
    {"robust_futexes", "robust mutexes between processes", nullptr, robust_futexes},
    {"floating_point", "AVX, SSE and x87 registers and modes", nullptr, floating_point},
};

}  // namespace matrix
