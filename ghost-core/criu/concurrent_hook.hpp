// SPDX-License-Identifier: BSD-3-Clause
// What runs beside criu while the tree is frozen. Private to ghost-core/criu.
#pragma once

#include <atomic>
#include <functional>
#include <sys/eventfd.h>
#include <thread>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// The hook of a dump (DumpRequest::on_stopped) that runs beside criu. Its thread is there before
// the tree is frozen.
class ConcurrentHook {
  public:
    explicit ConcurrentHook(const std::function<Status()>& work)
        : done_(eventfd(0, EFD_CLOEXEC)), go_(eventfd(0, EFD_CLOEXEC)) {
        if (work) thread_ = std::thread([this, &work] { serve(work); });
    }
    ~ConcurrentHook() {
        if (!thread_.joinable()) return;
        cancelled_ = !started_;
        eventfd_write(go_.get(), 1);
        thread_.join();
    }
    ConcurrentHook(const ConcurrentHook&) = delete;
    ConcurrentHook& operator=(const ConcurrentHook&) = delete;

    void go() {
        started_ = true;
        if (thread_.joinable())
            eventfd_write(go_.get(), 1);
        else
            eventfd_write(done_.get(), 1);
    }
    bool started() const { return started_; }
    bool ended() const { return ended_; }
    int fd() const { return done_.get(); }  // readable when it is through
    // After that. Its result.
    Status take() {
        eventfd_t value = 0;
        eventfd_read(done_.get(), &value);
        ended_ = true;
        return result_;
    }

  private:
    void serve(const std::function<Status()>& work) {
        eventfd_t value = 0;
        eventfd_read(go_.get(), &value);
        if (!cancelled_) result_ = work();
        eventfd_write(done_.get(), 1);
    }

    Fd done_, go_;
    std::atomic<bool> cancelled_ = false;
    bool started_ = false, ended_ = false;
    Status result_;
    std::thread thread_;
};

}  // namespace ghost::core
