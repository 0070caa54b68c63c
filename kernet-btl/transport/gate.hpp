// SPDX-License-Identifier: BSD-3-Clause
// The asymmetric gate between the data side and the control side.
//
// A data-path call pays two plain stores and a load; the control side pays for the ordering with
// membarrier(2) PRIVATE_EXPEDITED, which makes every running thread of the process pass a full
// barrier: a fence in each call would cost several times what the stores do. Where membarrier is
// not allowed the data side uses the fence.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace kernet {

class Gate {
  public:
    class Holder;

    // threads: several threads may be on the data side; they then also exclude each other.
    explicit Gate(bool threads);

    // --- data side ---
    // Calls may nest (an upper layer's callback sends); only the outermost one waits.
    void enter() {
        if (threads_) mutex_.lock();
        if (depth_++ > 0) return;
        arrive();
    }
    void leave() {
        if (--depth_ == 0) inside_.store(0, std::memory_order_release);
        if (threads_) mutex_.unlock();
    }
    bool nested() const { return depth_ > 1; }

    // --- control side ---
    // Returns when no call is inside; idempotent.
    void close();
    void open();
    bool closed() const { return closed_.load(std::memory_order_acquire) != 0; }

  private:
    void arrive() {
        inside_.store(1, std::memory_order_relaxed);
        std::atomic_signal_fence(std::memory_order_seq_cst);
        if (fence_) std::atomic_thread_fence(std::memory_order_seq_cst);
        if (closed_.load(std::memory_order_acquire) != 0) [[unlikely]]
            wait_open();
    }
    void wait_open();

    alignas(64) std::atomic<uint32_t> inside_{0};
    int depth_ = 0;  // data side; under mutex_ if threads_
    bool threads_;
    bool fence_;
    std::recursive_mutex mutex_;
    alignas(64) std::atomic<uint32_t> closed_{0};  // also the futex word, private
};

// A data-path call in progress.
class [[nodiscard]] Gate::Holder {
  public:
    explicit Holder(Gate& gate) : gate_(gate) { gate_.enter(); }
    ~Holder() { gate_.leave(); }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;

  private:
    Gate& gate_;
};

}  // namespace kernet
