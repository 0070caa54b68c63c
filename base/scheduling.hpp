// SPDX-License-Identifier: BSD-3-Clause
// Scheduling classes, for whoever must not wait for a processor while a rank is frozen.
#pragma once

#include <sched.h>

namespace ghost {

// The lowest priority of a class; of SCHED_OTHER, which has none, 0.
inline sched_param lowest_of(int policy) {
    sched_param out{};
    out.sched_priority = sched_get_priority_min(policy);
    return out;
}

// One above: before whoever else does part of the same work.
inline sched_param next_to_lowest_of(int policy) {
    sched_param out = lowest_of(policy);
    if (out.sched_priority < sched_get_priority_max(policy)) out.sched_priority++;
    return out;
}

// The calling thread waits for its turn from now on, whatever class it was started in.
inline void schedule_ordinarily() {
    const sched_param none = lowest_of(SCHED_OTHER);
    sched_setscheduler(0, SCHED_OTHER, &none);
}

}  // namespace ghost
