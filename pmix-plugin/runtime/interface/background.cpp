// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/interface/background.hpp"

#include <csignal>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

namespace ghost::plugin {

void Background::add(std::function<void()> work, std::function<void()> done) {
    if (stopped_) return;
    if (!threaded_) {
        work();
        if (!done) return;
        loop_.after(0, [alive = std::weak_ptr<bool>(alive_), done = std::move(done)] {
            if (alive.lock()) done();
        });
        return;
    }
    if (!thread_.joinable()) start();
    std::lock_guard lock(mutex_);
    waiting_.push_back({std::move(work), std::move(done)});
    more_.notify_one();
}

void Background::start() {
    event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    watch_ = loop_.watch(event_.get(), [this] { completed(); });
    // A signal of the runtime must not be taken by this thread.
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    thread_ = std::thread([this] { work(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Background::work() {
    std::unique_lock lock(mutex_);
    for (;;) {
        more_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        Job job = std::move(waiting_.front());
        waiting_.pop_front();
        lock.unlock();
        job.work();
        lock.lock();
        if (!job.done) continue;
        ended_.push_back(std::move(job.done));
        const uint64_t one = 1;
        if (::write(event_.get(), &one, sizeof one) < 0) continue;  // full: readable already
    }
}

void Background::completed() {
    uint64_t count = 0;
    if (::read(event_.get(), &count, sizeof count) < 0) return;
    std::deque<std::function<void()>> ended;
    {
        std::lock_guard lock(mutex_);
        ended.swap(ended_);
    }
    auto alive = std::weak_ptr<bool>(alive_);
    for (auto& done : ended) {
        if (alive.lock()) done();
    }
}

void Background::stop() {
    stopped_ = true;
    alive_.reset();
    if (!thread_.joinable()) return;
    {
        std::lock_guard lock(mutex_);
        ending_ = true;
        more_.notify_one();
    }
    thread_.join();
    loop_.unwatch(watch_);
    event_.reset();
}

}  // namespace ghost::plugin
