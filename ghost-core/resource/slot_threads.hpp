// A fixed number of slots, each with a thread that carries out one job at a time: what resources
// overlap reading, writing and computing with.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ghost::core {

// start() and wait() are for one thread, the owner's; what a slot works on is the thread's between
// start() and wait(), and the owner's otherwise.
class SlotThreads {
  public:
    SlotThreads(size_t slots, std::function<void(size_t slot)> job);
    ~SlotThreads();  // waits for the jobs that run
    SlotThreads(const SlotThreads&) = delete;
    SlotThreads& operator=(const SlotThreads&) = delete;

    size_t slots() const { return slots_; }
    // Has the slot's thread do the job; the slot must be idle.
    void start(size_t slot);
    // Until the slot is idle.
    void wait(size_t slot);
    void wait_all();

  private:
    void run(size_t slot);

    // Each wakes only the one who waits for it: waking costs more than most jobs' share of work.
    struct Slot {
        std::condition_variable started, done;
        bool busy = false;
    };

    const size_t slots_;
    std::function<void(size_t)> job_;
    std::mutex mutex_;
    std::vector<Slot> states_;
    bool ending_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace ghost::core
