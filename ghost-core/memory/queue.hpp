// SPDX-License-Identifier: BSD-3-Clause
// Hand-over between two threads: a queue that can be closed.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

namespace ghost::core {

// Any number of threads may push and pop. The bound is the number of objects in circulation, which
// its users limit by the buffers they hand around.
template <typename T>
class Queue {
  public:
    // False (and `value` dropped) once closed.
    bool push(T value) {
        std::lock_guard lock(mutex_);
        if (closed_) return false;
        items_.push_back(std::move(value));
        ready_.notify_one();
        return true;
    }

    // Waits for an element; nothing once it is closed, or finished and empty.
    std::optional<T> pop() {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [&] { return closed_ || finished_ || !items_.empty(); });
        if (closed_ || items_.empty()) return std::nullopt;
        T value = std::move(items_.front());
        items_.pop_front();
        return value;
    }

    enum class Waited { got, nothing_yet, over };
    // The same with a time limit in µs, for those who have something else to do meanwhile.
    Waited pop_within(int64_t us, T& value) {
        std::unique_lock lock(mutex_);
        ready_.wait_for(lock, std::chrono::microseconds(us),
                        [&] { return closed_ || finished_ || !items_.empty(); });
        if (closed_) return Waited::over;
        if (items_.empty()) return finished_ ? Waited::over : Waited::nothing_yet;
        value = std::move(items_.front());
        items_.pop_front();
        return Waited::got;
    }

    // No more will be pushed; what is there can still be taken.
    void finish() {
        std::lock_guard lock(mutex_);
        finished_ = true;
        ready_.notify_all();
    }

    // Everybody stops now; what is there is dropped.
    void close() {
        std::lock_guard lock(mutex_);
        closed_ = true;
        items_.clear();
        ready_.notify_all();
    }

  private:
    std::mutex mutex_;
    std::condition_variable ready_;
    std::deque<T> items_;
    bool finished_ = false;
    bool closed_ = false;
};

}  // namespace ghost::core
