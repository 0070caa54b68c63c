// SPDX-License-Identifier: BSD-3-Clause
// A fixed number of slots with a job each, and threads that carry these out in the order in which
// they were started: what resources overlap reading, writing and computing with.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <sched.h>
#include <thread>
#include <vector>

namespace ghost::core {

// start() and wait() are for one thread, the owner's; what a slot works on is a thread's between
// start() and wait(), and the owner's otherwise.
class SlotThreads {
  public:
    SlotThreads(size_t slots, size_t threads, std::function<void(size_t slot)> job);
    ~SlotThreads();  // waits for the jobs that run
    SlotThreads(const SlotThreads&) = delete;
    SlotThreads& operator=(const SlotThreads&) = delete;

    size_t slots() const { return slots_; }
    // Has a thread do the job; the slot must be idle.
    void start(size_t slot);
    // Until the slot is idle.
    void wait(size_t slot);
    void wait_all();
    // From now on the threads go before the calling thread where that has a real-time class
    // (realtime_priority.hpp), and are ordinary ones where it has none: for jobs that only wait for
    // a device. In the ordinary class what comes next is not begun before all urgent threads rest.
    // Without the privilege nothing changes.
    void go_before_caller();

  private:
    void run();
    void end();  // of the threads

    // Who ends a job wakes only the one who waits for it: waking costs more than most jobs' share
    // of work.
    struct Slot {
        std::condition_variable done;
        bool busy = false;
    };

    const size_t slots_;
    std::function<void(size_t)> job_;
    std::mutex mutex_;
    std::condition_variable started_;
    std::vector<Slot> states_;
    std::deque<size_t> waiting_;  // slots whose jobs have no thread yet
    bool ending_ = false;
    int policy_ = -1;  // whatever they have begun with
    std::vector<std::thread> threads_;
};

}  // namespace ghost::core
