// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/slot_threads.hpp"

#include <csignal>

#include "base/scheduling.hpp"

namespace ghost::core {

SlotThreads::SlotThreads(size_t slots, size_t threads, std::function<void(size_t)> job)
    : slots_(slots), job_(std::move(job)), states_(slots) {
    // Signals are for the threads of the program that uses us.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        for (size_t i = 0; i < threads; i++) threads_.emplace_back([this] { run(); });
    } catch (...) {
        end();
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

SlotThreads::~SlotThreads() {
    wait_all();
    end();
}

void SlotThreads::end() {
    {
        std::lock_guard lock(mutex_);
        ending_ = true;
    }
    started_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void SlotThreads::start(size_t slot) {
    {
        std::lock_guard lock(mutex_);
        states_[slot].busy = true;
        waiting_.push_back(slot);
    }
    started_.notify_one();
}

void SlotThreads::wait(size_t slot) {
    std::unique_lock lock(mutex_);
    states_[slot].done.wait(lock, [&] { return !states_[slot].busy; });
}

void SlotThreads::wait_all() {
    for (size_t slot = 0; slot < slots_; slot++) wait(slot);
}

void SlotThreads::go_before_caller() {
    const int caller = sched_getscheduler(0);
    const int policy = caller == SCHED_RR || caller == SCHED_FIFO ? caller : SCHED_OTHER;
    if (policy == policy_) return;
    policy_ = policy;
    const sched_param param = next_to_lowest_of(policy);
    for (auto& thread : threads_) pthread_setschedparam(thread.native_handle(), policy, &param);
}

void SlotThreads::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        started_.wait(lock, [&] { return !waiting_.empty() || ending_; });
        if (waiting_.empty()) return;
        const size_t slot = waiting_.front();
        waiting_.pop_front();
        lock.unlock();
        job_(slot);
        lock.lock();
        states_[slot].busy = false;
        states_[slot].done.notify_one();
    }
}

}  // namespace ghost::core
