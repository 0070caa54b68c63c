// SPDX-License-Identifier: BSD-3-Clause
// Work that may block on a disk, off the runtime's loop: one thread, jobs one after the other.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/fd.hpp"
#include "pmix-plugin/runtime/interface/event_loop.hpp"

namespace ghost::plugin {

// Owned and called by the loop thread. The thread is made with the first job, and takes no signals.
class Background {
  public:
    // threaded false: jobs run at once, in the caller (the simulated runtime's clock stands still
    // meanwhile); their completion still comes from the loop.
    Background(EventLoop& loop, bool threaded) : loop_(loop), threaded_(threaded) {}
    ~Background() { stop(); }
    Background(const Background&) = delete;
    Background& operator=(const Background&) = delete;

    // Runs `job` on the thread, then `done` with what it gave on the loop. The job must not touch
    // anything of the loop's. Both start in the order of the calls.
    template <typename T>
    void run(std::function<T()> job, std::function<void(T)> done) {
        auto value = std::make_shared<std::optional<T>>();
        add([value, job = std::move(job)] { value->emplace(job()); },
            [value, done = std::move(done)] { done(std::move(**value)); });
    }
    // The same without a result.
    void run(std::function<void()> job) { add(std::move(job), nullptr); }

    // Does what was asked for to its end and ends the thread; no completion comes any more.
    void stop();

  private:
    struct Job {
        std::function<void()> work;
        std::function<void()> done;
    };

    void add(std::function<void()> work, std::function<void()> done);
    void start();
    void work();
    void completed();

    EventLoop& loop_;
    bool threaded_;
    bool stopped_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    std::thread thread_;
    Fd event_;  // readable when jobs have ended
    WatchId watch_ = 0;
    std::mutex mutex_;  // of what follows
    std::condition_variable more_;
    std::deque<Job> waiting_;
    std::deque<std::function<void()>> ended_;
    bool ending_ = false;
};

}  // namespace ghost::plugin
