// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/binding.hpp"

#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/fd.hpp"
#include "ghost-core/criu/proc.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {
namespace {

struct Bound {
    pid_t tid = 0;
    cpu_set_t before{};
};

std::string note_of(pid_t root) {
    return fmt::format("/dev/shm/ghost-bound-{}", root);
}

std::vector<pid_t> threads_of(const std::vector<Task>& tasks) {
    std::vector<pid_t> out;
    for (const auto& task : tasks)
        for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid)))
            out.push_back(tid);
    return out;
}

std::vector<Bound> bindings_of(const std::vector<pid_t>& threads) {
    std::vector<Bound> out;
    for (const pid_t tid : threads) {
        Bound one{tid, {}};
        if (sched_getaffinity(tid, sizeof one.before, &one.before) == 0) out.push_back(one);
    }
    return out;
}

// The processor it was on last, proc(5); -1 if it is gone.
int last_processor(pid_t pid) {
    const auto fields = stat_fields(pid);
    return fields.size() > 36 ? std::atoi(fields[36].c_str()) : -1;
}

// One that all of them and we may use, `wanted` if possible; -1: there is none.
int common_processor(const std::vector<Bound>& all, int wanted) {
    cpu_set_t common;
    if (sched_getaffinity(0, sizeof common, &common) != 0) return -1;
    for (const auto& one : all) CPU_AND(&common, &common, &one.before);
    const auto usable = [&](int cpu) {
        return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(static_cast<size_t>(cpu), &common);
    };
    if (usable(wanted)) return wanted;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (usable(cpu)) return cpu;
    return -1;
}

Status write_note(const std::string& path, const std::vector<Bound>& all) {
    const Fd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file) return sys_error("note what a tree is bound to", path);
    const size_t size = all.size() * sizeof(Bound);
    if (write(file.get(), all.data(), size) == static_cast<ssize_t>(size)) return {};
    unlink(path.c_str());
    return sys_error("note what a tree is bound to", path);
}

// Only what is ours: anybody may put files there.
std::vector<Bound> read_note(const std::string& path) {
    const Fd file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    struct stat info {};
    if (!file || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode) ||
        info.st_uid != geteuid() || (info.st_mode & 077) != 0)
        return {};
    std::vector<Bound> out(static_cast<size_t>(info.st_size) / sizeof(Bound));
    const size_t size = out.size() * sizeof(Bound);
    if (read(file.get(), out.data(), size) != static_cast<ssize_t>(size)) return {};
    return out;
}

}  // namespace

Status bind_tree(pid_t root, const std::vector<Task>& tasks, pid_t criu) {
    unbind_tree(root, tasks);  // what somebody who was killed has left
    const auto all = bindings_of(threads_of(tasks));
    const pid_t program = tasks.size() > 1 ? tasks[1].pid : root;
    const int cpu = common_processor(all, last_processor(program));
    if (cpu < 0)
        return make_error(Code::unsupported, "bind tree", {}, "no processor for all of it");
    GHOST_TRY(write_note(note_of(root), all));
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(cpu), &one);
    for (const auto& thread : all) sched_setaffinity(thread.tid, sizeof one, &one);
    sched_setaffinity(criu, sizeof one, &one);
    for (const pid_t helper : children_of(criu)) sched_setaffinity(helper, sizeof one, &one);
    return {};
}

void unbind_tree(pid_t root, const std::vector<Task>& tasks) {
    const auto path = note_of(root);
    const auto all = read_note(path);
    if (all.empty()) return;
    for (const pid_t tid : threads_of(tasks)) {
        const auto noted =
            std::find_if(all.begin(), all.end(), [&](const Bound& one) { return one.tid == tid; });
        if (noted != all.end()) sched_setaffinity(tid, sizeof noted->before, &noted->before);
    }
    unlink(path.c_str());
}

void unbind_tree(pid_t root) {
    if (access(note_of(root).c_str(), F_OK) != 0) return;
    auto tasks = list_tree(root);
    unbind_tree(root, tasks ? *tasks : std::vector<Task>{});
}

}  // namespace ghost::core
