// SPDX-License-Identifier: BSD-3-Clause
// This daemon before everything else on its node, while ranks are frozen for it.
#pragma once

#include <vector>

#include <sched.h>
#include <sys/types.h>

namespace ghost::plugin::orte41 {

// Ranks wait by spinning: in the ordinary class each message may wait a whole slice (3 ms, and on a
// full node many of them) until the daemon's main thread or its PMIx server's gets a processor. All
// threads of this process are in SCHED_RR from the first begin() to the last end(); what they start
// meanwhile is not. Without the privilege nothing changes. Main thread.
class DaemonPriority {
  public:
    ~DaemonPriority();
    void begin();
    void end();

  private:
    struct Before {
        pid_t thread;
        int policy;
        sched_param param;
    };
    void restore();

    int depth_ = 0;
    std::vector<Before> before_;
};

}  // namespace ghost::plugin::orte41
