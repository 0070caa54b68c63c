// SPDX-License-Identifier: BSD-3-Clause
// Threads that wait for work, so that none has to be started while a process is frozen.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <sched.h>
#include <thread>
#include <vector>

#include "base/result.hpp"

namespace ghost::core {

// One caller at a time.
class Workers {
  public:
    // That many threads in all, the caller's included; 0: one for each processor it may use, at
    // most `most`. They have the scheduling class of the thread that makes them.
    explicit Workers(unsigned count = 0);
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    // Calls work(0) … work(count - 1), each once, several at a time; returns when all are done. The
    // first error ends it: numbers not begun then are left out.
    Status each(size_t count, const std::function<Status(size_t)>& work);

    // Its threads (not the caller's) run in SCHED_RR until lower_priority(): somebody is frozen and
    // waits for what they do. Without the privilege nothing changes.
    void raise_priority() { change_class(SCHED_RR); }
    void lower_priority() { change_class(SCHED_OTHER); }

    unsigned count() const { return static_cast<unsigned>(threads_.size()) + 1; }

    static constexpr unsigned most = 16;

  private:
    void change_class(int policy);
    void serve();
    void help();

    std::mutex mutex_;
    std::condition_variable go_, done_;
    uint64_t call_ = 0;  // number of the call of each() that goes on
    size_t busy_ = 0;    // threads that have not finished it
    bool stopping_ = false;
    const std::function<Status(size_t)>* work_ = nullptr;
    size_t total_ = 0;
    std::atomic<size_t> next_ = 0;
    std::optional<Error> failure_;
    std::vector<std::thread> threads_;
};

}  // namespace ghost::core
