// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/binding.hpp"

#include <cstdlib>
#include <sched.h>

#include "base/proc.hpp"

namespace ghost::core {
namespace {

// The processor it was on last, proc(5); -1 if it is gone.
int last_processor(pid_t pid) {
    const auto fields = stat_fields(pid);
    return fields.size() > 36 ? std::atoi(fields[36].c_str()) : -1;
}

// One that all of them and we may use, `wanted` if possible; -1: there is none.
int common_processor(const Placements& all, int wanted) {
    cpu_set_t common;
    if (sched_getaffinity(0, sizeof common, &common) != 0) return -1;
    for (const auto& one : all) CPU_AND(&common, &common, &one.processors);
    const auto usable = [&](int cpu) {
        return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(static_cast<size_t>(cpu), &common);
    };
    if (usable(wanted)) return wanted;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (usable(cpu)) return cpu;
    return -1;
}

}  // namespace

Status bind_tree(const std::vector<Task>& tasks, const Placements& before, pid_t criu) {
    const int cpu = common_processor(before, last_processor(tasks[tasks.size() > 1 ? 1 : 0].pid));
    if (cpu < 0)
        return make_error(Code::unsupported, "bind tree", {}, "no processor for all of it");
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(cpu), &one);
    for (const auto& thread : before) sched_setaffinity(thread.tid, sizeof one, &one);
    sched_setaffinity(criu, sizeof one, &one);
    for (const pid_t helper : children_of(criu)) sched_setaffinity(helper, sizeof one, &one);
    return {};
}

void unbind_tree(const Placements& before) {
    for (const auto& thread : before)
        sched_setaffinity(thread.tid, sizeof thread.processors, &thread.processors);
}

}  // namespace ghost::core
