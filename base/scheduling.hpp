// Scheduling classes, for whoever must not wait for a processor while a rank stands.
#pragma once

#include <sched.h>

namespace ghost {

// The lowest priority of a class; of SCHED_OTHER, which has none, 0.
inline sched_param lowest_of(int policy) {
    sched_param out{};
    out.sched_priority = sched_get_priority_min(policy);
    return out;
}

}  // namespace ghost
