#include "ghost-core/resource/slot_threads.hpp"

#include <csignal>

namespace ghost::core {

SlotThreads::SlotThreads(size_t slots, std::function<void(size_t)> job)
    : slots_(slots), job_(std::move(job)), busy_(slots, false) {
    // Signals are for the threads of the program that uses us.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t slot = 0; slot < slots; slot++) threads_.emplace_back([this, slot] { run(slot); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

SlotThreads::~SlotThreads() {
    wait_all();
    {
        std::lock_guard lock(mutex_);
        ending_ = true;
    }
    changed_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void SlotThreads::start(size_t slot) {
    {
        std::lock_guard lock(mutex_);
        busy_[slot] = true;
    }
    changed_.notify_all();
}

void SlotThreads::wait(size_t slot) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !busy_[slot]; });
}

void SlotThreads::wait_all() {
    for (size_t slot = 0; slot < slots_; slot++) wait(slot);
}

void SlotThreads::run(size_t slot) {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [&] { return busy_[slot] || ending_; });
        if (!busy_[slot]) return;
        lock.unlock();
        job_(slot);
        lock.lock();
        busy_[slot] = false;
        changed_.notify_all();
    }
}

}  // namespace ghost::core
