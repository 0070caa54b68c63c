// SPDX-License-Identifier: BSD-3-Clause
// What a thread waits for: descriptors, times and the ends of processes (libevent).
//
//     Loop loop;
//     const auto end = loop.on_end(child, [&] { loop.stop(); });
//     const auto input = loop.on_readable(0, [&] { take_input(); });
//     GHOST_TRY(loop.run());
//
// libevent only waits: callbacks are called when it has returned, in the order in which their
// watches were made. So what one throws comes out of run() and crosses no C, and what two things
// that happen at once lead to does not depend on chance.
//
// It waits by poll(2), which takes every kind of file, /dev/null and regular ones included. Of
// descriptors libevent has only a pair of pipe ends, closed on exec; they are no Fds. A child that
// goes on without exec(3) leaves the loop alone, and closes them with close_range(2) if it may hold
// nothing of its parent's; what it has of them does its parent no harm.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "base/result.hpp"

struct event_base;

namespace ghost {

// Owned and used by one thread, its watches too; they end before it. Another thread wakes it by a
// descriptor (eventfd(2)).
class Loop {
  public:
    using Callback = std::function<void()>;
    struct Watched;

    // As long as it lives its callback may be called, once in a round; its end within a round
    // counts at once. The callback itself may end or replace it.
    class [[nodiscard]] Watch {
      public:
        Watch() = default;  // of nothing
        explicit Watch(std::shared_ptr<Watched> watched) : watched_(std::move(watched)) {}
        Watch(Watch&&) noexcept = default;
        Watch& operator=(Watch&& other) noexcept;
        Watch(const Watch&) = delete;
        Watch& operator=(const Watch&) = delete;
        ~Watch() { reset(); }

        void reset();
        explicit operator bool() const { return watched_ != nullptr; }

      private:
        std::shared_ptr<Watched> watched_;
    };

    Loop();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    // While there is something to read, or an end or an error to be found by reading. The
    // descriptor stays the caller's, open as long as the watch lives; -1: a watch of nothing.
    Watch on_readable(int fd, Callback call);
    Watch on_writable(int fd, Callback call);
    // Once, so many microseconds from now; up to a millisecond later, never earlier.
    Watch after(int64_t us, Callback call);
    // Again and again.
    Watch every(int64_t us, Callback call);
    // When the process, a child that is not reaped yet, has ended.
    Watch on_end(pid_t child, Callback call);

    // Rounds until stop(), which a callback calls.
    Status run();
    void stop() { stopped_ = true; }
    // Waits until there is somebody to call, and calls all of them; `wait` false: whoever is due
    // now. Not from a callback; one that throws ends the round. Fails if there is nothing to wait
    // for, or the kernel has no memory for it.
    Status round(bool wait = true);

  private:
    Watch watch(int fd, short what, int64_t us, Callback call);

    struct Free {
        void operator()(event_base* base) const;
    };
    std::unique_ptr<event_base, Free> base_;
    std::vector<std::shared_ptr<Watched>> watched_;  // in the order they were made
    std::vector<std::shared_ptr<Watched>> due_;      // of this round
    bool stopped_ = false;
};

}  // namespace ghost
