// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/tree.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <iterator>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/placement.hpp"

namespace ghost::core {
namespace {

constexpr int64_t criu_end_us = 2000000;

}  // namespace

namespace {

void collect(pid_t pid, std::vector<Task>& out) {
    const auto status = read_status(fmt::format("/proc/{}", pid));
    if (!status) return;
    out.push_back({pid, status->numbers.back(), status->name, status->state});
    for (const pid_t child : children_of(pid)) collect(child, out);
}

}  // namespace

Result<std::vector<Task>> list_tree(pid_t root) {
    std::vector<Task> out;
    if (root > 0) collect(root, out);
    if (out.empty()) return make_error(Code::not_found, "find process", std::to_string(root));
    return out;
}

Status wait_untraced(pid_t root, int64_t limit_us) {
    for (const int64_t limit = monotonic_us() + limit_us;;) {
        auto tasks = list_tree(root);
        if (!tasks) return tasks.error();
        const bool held = std::any_of(tasks->begin(), tasks->end(), [](const Task& task) {
            const auto status = read_status(fmt::format("/proc/{}", task.pid));
            return status && status->tracer != 0;
        });
        if (!held) return {};
        if (monotonic_us() > limit)
            return make_error(Code::timeout, "wait for the end of criu", std::to_string(root));
        poll(nullptr, 0, 1);
    }
}

void calm_tree(pid_t root) {
    if (auto tasks = list_tree(root)) give_back(root, *tasks);
}

void halt_tree(pid_t root) {
    const auto tasks = list_tree(root);
    if (!tasks) return;
    const auto before = give_back(root, *tasks);
    Placements threads;
    for (const auto& task : *tasks)
        add_placements(task.pid,
                       task.state == 'T' && (!before || before->stopped.contains(task.pid)),
                       threads);
    if (before) keep_waits(before->waits, threads);
    if (auto noted = note_placements(root, threads); !noted.ok())
        log::warning("{}", noted.error().message());
    for (const auto& task : *tasks)
        if (task.state != 'T') kill(task.pid, SIGSTOP);
}

Status resume_tree(pid_t root) {
    if (auto free = wait_untraced(root, criu_end_us); !free.ok())
        log::warning("{}", free.error().message());
    auto tasks = list_tree(root);
    if (!tasks) {
        remove_stale_notes();  // of it, too
        return tasks.error();
    }
    return resume_tasks(root, *tasks);
}

Status resume_tasks(pid_t root, const std::vector<Task>& tasks) {
    const auto frozen = give_back(root, tasks).value_or(Frozen());
    return continue_tasks(tasks, frozen.stopped, frozen.waits);
}

namespace {

Status send_continue(const std::vector<Task>& tasks, const std::set<pid_t>& stay) {
    // Children first: the init must not see a child stopped for long after it runs itself. It
    // passes on what kill(2) sends, also to those that stay.
    siginfo_t for_init{};
    for_init.si_signo = SIGCONT;
    for_init.si_code = SI_QUEUE;
    for (auto task = tasks.rbegin(); task != tasks.rend(); ++task) {
        if (stay.contains(task->pid)) continue;
        const bool is_root = task == std::prev(tasks.rend());
        const long sent = is_root ? syscall(SYS_rt_sigqueueinfo, task->pid, SIGCONT, &for_init)
                                  : kill(task->pid, SIGCONT);
        if (sent != 0 && errno != ESRCH)
            return sys_error("continue process", std::to_string(task->pid));
    }
    return {};
}

// For the thread that calls this, as tracer; its end lets all of them go.
Status continue_with_waits(const std::vector<Task>& tasks, const std::set<pid_t>& stay,
                           const SocketWaits& waits) {
    std::vector<ThreadId> waiting;
    for (const auto& task : tasks) {
        if (stay.contains(task.pid)) continue;
        for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid))) {
            syscall(SYS_ptrace, PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD);
            if (waits.contains(tid)) waiting.push_back({task.pid, tid});
        }
    }
    GHOST_TRY(send_continue(tasks, stay));
    for (const auto& one : waiting) begin_again(one.pid, one.tid, waits.at(one.tid));
    return {};
}

}  // namespace

Status continue_tasks(const std::vector<Task>& tasks, const std::set<pid_t>& stay,
                      const SocketWaits& waits) {
    if (waits.empty()) return send_continue(tasks, stay);
    Status status;
    std::thread([&] { status = continue_with_waits(tasks, stay, waits); }).join();
    return status;
}

Result<ThreadId> find_thread(pid_t root, pid_t inner_tid) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    for (const auto& task : *tasks) {
        const auto folder = fmt::format("/proc/{}/task", task.pid);
        for (const pid_t tid : numbers_in(folder)) {
            const auto status = read_status(fmt::format("{}/{}", folder, tid));
            if (status && status->numbers.back() == inner_tid) return ThreadId{task.pid, tid};
        }
    }
    return make_error(Code::not_found, fmt::format("find thread {} of tree", inner_tid),
                      std::to_string(root));
}

}  // namespace ghost::core
