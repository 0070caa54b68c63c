// SPDX-License-Identifier: BSD-3-Clause
// Cases: how each thread is scheduled.
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <linux/mempolicy.h>
#include <memory>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <thread>
#include <unistd.h>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

constexpr int one_process = 1;              // IOPRIO_WHO_PROCESS
constexpr int best_effort_6 = 2 << 13 | 6;  // IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6)

struct Attributes {
    uint32_t size = 48, policy = 0;
    uint64_t flags = 0;
    int32_t nice = 0;
    uint32_t priority = 0;
    uint64_t runtime = 0, deadline = 0, period = 0;
};

Attributes attributes() {
    Attributes out;
    need(syscall(SYS_sched_getattr, 0, &out, sizeof out, 0) == 0, "sched_getattr");
    return out;
}

void set(const Attributes& wanted) {
    need(syscall(SYS_sched_setattr, 0, &wanted, 0) == 0, "sched_setattr");
}

std::string processors() {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    sched_getaffinity(0, sizeof mask, &mask);
    std::string out;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mask)) out += std::to_string(cpu) + ",";
    return out;
}

void bind_to(std::initializer_list<size_t> cpus) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    for (const size_t cpu : cpus) CPU_SET(cpu, &mask);
    need(sched_setaffinity(0, sizeof mask, &mask) == 0, "sched_setaffinity");
}

// Threads that have brought themselves into some state and say what they see of it when asked.
class Sayers {
  public:
    using Say = std::string (*)();
    void add(std::function<void()> begin, Say say) {
        auto& one = *sayers_.emplace_back(std::make_unique<Sayer>());
        one.thread = std::thread([&one, begin = std::move(begin), say] {
            begin();
            one.before = say();
            one.answers = 1;
            one.answers.notify_all();
            one.answers.wait(1);
            one.now = say();
            one.answers = 3;
            one.answers.notify_all();
        });
        one.answers.wait(0);
    }
    std::string check() {
        std::string wrong;
        for (auto& one : sayers_) {
            one->answers = 2;
            one->answers.notify_all();
            one->thread.join();
            if (one->now != one->before)
                wrong += "it is " + one->now + ", it was " + one->before + "; ";
        }
        return wrong;
    }

  private:
    struct Sayer {
        std::thread thread;
        std::atomic<int> answers{0};
        std::string before, now;
    };
    std::vector<std::unique_ptr<Sayer>> sayers_;
};

Check bound_threads(const std::string&) {
    static Sayers sayers;
    const auto usable = processors();
    need(usable.size() > 2, "one processor only");
    sayers.add([] {}, processors);
    sayers.add([] { bind_to({0}); }, processors);
    sayers.add([] { bind_to({1}); }, processors);
    // Where the memory is made does not depend on it: the main thread's own.
    bind_to({1});
    return []() -> std::string {
        return sayers.check() + (processors() == "1," ? "" : "main thread: " + processors());
    };
}

std::string class_of_thread() {
    const auto now = attributes();
    return "class " + std::to_string(now.policy) + " flags " + std::to_string(now.flags) +
           " priority " + std::to_string(now.priority) + " nice " +
           std::to_string(getpriority(PRIO_PROCESS, 0)) + " slice " + std::to_string(now.runtime);
}

Check classes(const std::string&) {
    static Sayers sayers;
    const auto as = [](uint32_t policy, uint32_t priority, int nice, uint64_t flags = 0,
                       uint64_t runtime = 0) {
        return [=] {
            need(setpriority(PRIO_PROCESS, 0, nice) == 0, "nice value");
            Attributes wanted;
            wanted.policy = policy;
            wanted.flags = flags;
            wanted.priority = priority;
            wanted.nice = nice;
            wanted.runtime = runtime;
            set(wanted);
        };
    };
    sayers.add([] {}, class_of_thread);
    sayers.add(as(SCHED_OTHER, 0, 7), class_of_thread);
    sayers.add(as(SCHED_OTHER, 0, 5, 0, 3000000), class_of_thread);  // Linux 6.12: a slice
    sayers.add(as(SCHED_OTHER, 0, 4, 1), class_of_thread);           // reset on fork
    sayers.add(as(SCHED_BATCH, 0, 3), class_of_thread);
    sayers.add(as(SCHED_IDLE, 0, 0), class_of_thread);
    if (geteuid() != 0) return [] { return sayers.check(); };
    sayers.add(as(SCHED_OTHER, 0, -5), class_of_thread);
    sayers.add(as(SCHED_FIFO, 3, 2, 1), class_of_thread);
    sayers.add(as(SCHED_RR, 7, 0), class_of_thread);
    sayers.add(as(SCHED_RR, 9, 0), class_of_thread);
    return [] { return sayers.check(); };
}

std::string slack() {
    return std::to_string(prctl(PR_GET_TIMERSLACK));
}

Check timer_slack(const std::string&) {
    static Sayers sayers;
    for (const unsigned long ns : {1UL, 50000UL, 7654321UL})
        sayers.add([ns] { need(prctl(PR_SET_TIMERSLACK, ns) == 0, "timer slack"); }, slack);
    return [] { return sayers.check(); };
}

std::string io_priority() {
    return std::to_string(syscall(SYS_ioprio_get, one_process, 0));
}

Check io_priorities(const std::string&) {
    static Sayers sayers;
    sayers.add([] {}, io_priority);
    sayers.add(
        [] { need(syscall(SYS_ioprio_set, one_process, 0, best_effort_6) == 0, "io priority"); },
        io_priority);
    return [] { return sayers.check(); };
}

// Mode and nodes of a policy: that of this thread, or of what is mapped there.
std::string memory_policy(const void* at = nullptr) {
    int mode = -1;
    std::array<unsigned long, 16> nodes{};
    if (syscall(SYS_get_mempolicy, &mode, nodes.data(), 1024, at,
                at == nullptr ? 0 : MPOL_F_ADDR) != 0)
        return "unknown";
    return std::to_string(mode) + " of nodes " + std::to_string(nodes[0]);
}

std::string own_memory_policy() {
    return memory_policy();
}

Check memory_policies(const std::string&) {
    static Sayers sayers;
    static const unsigned long first_node = 1;
    const auto as = [](int mode, bool with_nodes = true) {
        return [=] {
            need(syscall(SYS_set_mempolicy, mode, with_nodes ? &first_node : nullptr,
                         with_nodes ? 64 : 0) == 0,
                 "set_mempolicy");
        };
    };
    sayers.add([] {}, own_memory_policy);
    for (const int mode : {int{MPOL_PREFERRED}, int{MPOL_BIND}, int{MPOL_INTERLEAVE},
                           int{MPOL_PREFERRED_MANY}, MPOL_BIND | MPOL_F_STATIC_NODES})
        sayers.add(as(mode), own_memory_policy);
    sayers.add(as(MPOL_LOCAL, false), own_memory_policy);
    constexpr size_t bytes = 5 * 65536;
    static char* at = static_cast<char*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    need(at != MAP_FAILED &&
             syscall(SYS_mbind, at + 65536, 65536, MPOL_BIND, &first_node, 64, 0) == 0 &&
             syscall(SYS_mbind, at + 3 * 65536, 65536, MPOL_INTERLEAVE, &first_node, 64, 0) == 0,
         "mbind");
    static const auto say = [] {
        std::string out;
        for (size_t i = 0; i < bytes; i += 65536) out += memory_policy(at + i) + ", ";
        return out;
    };
    static const std::string before = say();
    return []() -> std::string {
        const auto now = say();
        return sayers.check() + (now == before ? "" : "mappings: " + now + "were " + before);
    };
}

Check one_memory_policy(const std::string&) {
    static const unsigned long first_node = 1;
    need(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &first_node, 64) == 0, "set_mempolicy");
    static Sayers sayers;
    sayers.add([] {}, own_memory_policy);
    static const std::string before = memory_policy();
    return []() -> std::string {
        const auto now = memory_policy();
        return sayers.check() + (now == before ? "" : "it is " + now + ", was " + before);
    };
}

// Of a thread that waits on a socket again and again; no call ends early, or by the stop.
Check socket_limits(const std::string&) {
    static constexpr timeval limit{0, 500000};
    static int ends[2];
    static std::atomic<bool> done = false;
    static std::string wrong;
    need(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0, "socketpair");
    need(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0, "setsockopt");
    static std::thread waiting([] {
        using Clock = std::chrono::steady_clock;
        while (!done && wrong.empty()) {
            char byte = 0;
            const auto begin = Clock::now();
            if (recv(ends[0], &byte, 1, 0) >= 0 || errno != EAGAIN)
                wrong = "recv: " + std::to_string(errno);
            else if (Clock::now() - begin < std::chrono::microseconds(limit.tv_usec))
                wrong = "recv ended early";
        }
    });
    return [] {
        done = true;
        waiting.join();
        timeval now{};
        socklen_t size = sizeof now;
        getsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &now, &size);
        return wrong.empty() ? differs("the limit", now.tv_usec, limit.tv_usec) : wrong;
    };
}

}  // namespace

const std::vector<Case> scheduling_cases = {
    {"processors", "processors of each thread, where the target has them", nullptr, bound_threads},
    {"classes", "class, priority, nice value and time slice of each thread", nullptr, classes},
    {"timer_slack", "timer slack of each thread (of real-time classes: none)", nullptr,
     timer_slack},
    {"io_priority", "io priority of each thread", nullptr, io_priorities},
    {"memory_policies",
     "memory policies of threads and mappings (set_mempolicy, mbind), where the target has the "
     "nodes",
     nullptr, memory_policies},
    {"socket_limits", "waits on sockets with SO_RCVTIMEO or SO_SNDTIMEO", nullptr, socket_limits},
    {"memory_policy", "that of a whole program (numactl)", nullptr, one_memory_policy},
};

}  // namespace matrix
