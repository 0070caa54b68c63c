// SPDX-License-Identifier: BSD-3-Clause
// The calling thread goes before everything else on the machine while a rank is frozen for it.
#pragma once

#include "base/scheduling.hpp"

namespace ghost::core {

// From construction to destruction the calling thread, and every thread and process it starts
// meanwhile, runs in the class SCHED_RR; those started keep it (a restored task gets its own class
// back from CRIU). MPI programs wait by spinning: in the ordinary class every hand-over between
// CRIU, the tree and us may wait a whole slice (3 ms) of a spinning neighbour. Without the
// privilege nothing changes. One thread; must end in the thread it began in.
class RealtimePriority {
  public:
    RealtimePriority() {
        before_ = sched_getscheduler(0);
        if (before_ < 0 || sched_getparam(0, &param_) != 0) return;
        const sched_param lowest = lowest_of(SCHED_RR);
        changed_ = sched_setscheduler(0, SCHED_RR, &lowest) == 0;
    }
    ~RealtimePriority() {
        if (changed_) sched_setscheduler(0, before_, &param_);
    }
    RealtimePriority(const RealtimePriority&) = delete;
    RealtimePriority& operator=(const RealtimePriority&) = delete;

  private:
    int before_ = 0;
    sched_param param_{};
    bool changed_ = false;
};

}  // namespace ghost::core
