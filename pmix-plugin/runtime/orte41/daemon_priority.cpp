// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/daemon_priority.hpp"

#include <charconv>
#include <cstring>
#include <dirent.h>
#include <memory>

#include "base/scheduling.hpp"

namespace ghost::plugin::orte41 {

DaemonPriority::~DaemonPriority() {
    restore();
}

void DaemonPriority::begin() {
    if (depth_++ > 0) return;
    std::unique_ptr<DIR, int (*)(DIR*)> list(::opendir("/proc/self/task"), ::closedir);
    const sched_param lowest = lowest_of(SCHED_RR);
    while (const dirent* entry = list ? ::readdir(list.get()) : nullptr) {
        Before before{0, 0, {}};
        const char* end = entry->d_name + std::strlen(entry->d_name);
        if (std::from_chars(entry->d_name, end, before.thread).ptr != end) continue;
        before.policy = sched_getscheduler(before.thread);
        if (before.policy < 0 || sched_getparam(before.thread, &before.param) != 0) continue;
        if (sched_setscheduler(before.thread, SCHED_RR | SCHED_RESET_ON_FORK, &lowest) == 0)
            before_.push_back(before);
    }
}

void DaemonPriority::end() {
    if (depth_ > 0 && --depth_ == 0) restore();
}

void DaemonPriority::restore() {
    for (const Before& before : before_)
        sched_setscheduler(before.thread, before.policy, &before.param);
    before_.clear();
}

}  // namespace ghost::plugin::orte41
