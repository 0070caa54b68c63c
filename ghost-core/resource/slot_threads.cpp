#include "ghost-core/resource/slot_threads.hpp"

#include <csignal>

namespace ghost::core {

SlotThreads::SlotThreads(size_t slots, std::function<void(size_t)> job)
    : slots_(slots), job_(std::move(job)), states_(slots) {
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
    for (auto& state : states_) state.started.notify_one();
    for (auto& thread : threads_) thread.join();
}

void SlotThreads::start(size_t slot) {
    {
        std::lock_guard lock(mutex_);
        states_[slot].busy = true;
    }
    states_[slot].started.notify_one();
}

void SlotThreads::wait(size_t slot) {
    std::unique_lock lock(mutex_);
    states_[slot].done.wait(lock, [&] { return !states_[slot].busy; });
}

void SlotThreads::wait_all() {
    for (size_t slot = 0; slot < slots_; slot++) wait(slot);
}

void SlotThreads::run(size_t slot) {
    auto& state = states_[slot];
    std::unique_lock lock(mutex_);
    for (;;) {
        state.started.wait(lock, [&] { return state.busy || ending_; });
        if (!state.busy) return;
        lock.unlock();
        job_(slot);
        lock.lock();
        state.busy = false;
        state.done.notify_one();
    }
}

}  // namespace ghost::core
