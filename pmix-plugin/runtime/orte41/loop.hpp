// SPDX-License-Identifier: BSD-3-Clause
// Timers and watched descriptors on ORTE's event base, as functions.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <sched.h>
#include <sys/types.h>
#include <vector>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin::orte41 {

// Used on ORTE's main thread only. Everything still pending is dropped by the destructor.
class Loop {
  public:
    Loop();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    TimerId after(int64_t us, std::function<void()> action);
    void cancel(TimerId timer);
    WatchId watch(int fd, std::function<void()> readable);
    void unwatch(WatchId watch);
    // Drops every timer and watch.
    void clear();

  private:
    struct Entry;
    static void fired(int fd, short flags, void* entry) noexcept;
    uint64_t add(int fd, std::function<void()> action);

    std::map<uint64_t, std::shared_ptr<Entry>> entries_;
    uint64_t last_ = 0;
};

// Runs `action` once from ORTE's event base; may be called before the base is run, from its thread.
void post_to_orte(std::function<void()> action);

// This daemon before everything else on its node, while ranks are frozen for it.
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
