// SPDX-License-Identifier: BSD-3-Clause
// An export or import under way: told of its progress, and cancelled by whom it may be.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "base/result.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/include/ghost.h"
#include "ghost-core/resource/stoppable.hpp"

namespace ghost::api {

// Of one ghost. cancel() by any thread and by signal handlers, everything else by the thread that
// exports or imports.
class Cancellation {
  public:
    enum class State : int {
        idle,       // nothing is under way
        under_way,  // and can be cancelled
        cancelled,
        committed,  // it is too late: the ghost is complete, or the process runs
    };
    void begin() { become(State::under_way); }
    void end() { become(State::idle); }
    void cancel() noexcept;
    // False: it has been cancelled before.
    bool commit() noexcept { return change(State::committed); }
    bool is_cancelled() const { return state_ == State::cancelled; }
    // Until it is cancelled (true), or cannot be any more.
    bool wait() const;

  private:
    bool change(State to) noexcept;
    void become(State to) noexcept;
    std::atomic<State> state_{State::idle};
};

// As long as this lives the export or import is under way. What waits for another node is
// interrupted by a thread of this when it is cancelled.
class Operation {
  public:
    Operation(ghost_object& g, std::string tried);
    ~Operation();
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;

    // How to interrupt what is done now; empty: it waits for nobody.
    void interrupted_by(std::function<void()> interrupt);
    // From here on nobody cancels it; an error if somebody has.
    Status commit();
    Status go_on() const;
    // `why`, unless that is only because it was cancelled.
    Error failed(const Error& why) const;
    // The user's function, which may say no, and throw.
    core::Progress progress();
    // A resource that is read and written as long as nobody cancels.
    core::Stoppable until_cancelled(core::Resource& inner) const;

  private:
    void watch();
    Error cancelled() const;
    ghost_object& g_;
    std::string tried_;
    std::mutex mutex_;
    std::function<void()> interrupt_;
    std::thread watcher_;
};

}  // namespace ghost::api
