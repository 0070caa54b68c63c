// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/workers.hpp"

#include <algorithm>
#include <pthread.h>

#include "base/scheduling.hpp"

namespace ghost::core {

Workers::Workers(unsigned count) {
    if (count == 0) {
        cpu_set_t allowed;
        CPU_ZERO(&allowed);
        const bool known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
        count = known ? std::min(static_cast<unsigned>(CPU_COUNT(&allowed)), most) : 1;
    }
    for (unsigned i = 1; i < count; i++) threads_.emplace_back([this] { serve(); });
}

Workers::~Workers() {
    {
        std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    go_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Workers::change_class(int policy) {
    const sched_param param = lowest_of(policy);
    for (auto& thread : threads_) pthread_setschedparam(thread.native_handle(), policy, &param);
}

void Workers::help() {
    for (size_t i = next_++; i < total_; i = next_++) {
        auto status = (*work_)(i);
        if (status.ok()) continue;
        std::lock_guard lock(mutex_);
        if (!failure_) failure_ = status.error();
        next_ = total_;
    }
}

void Workers::serve() {
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
        go_.wait(lock, [&] { return stopping_ || call_ != seen; });
        if (stopping_) return;
        seen = call_;
        lock.unlock();
        help();
        lock.lock();
        if (--busy_ == 0) done_.notify_one();
    }
}

Status Workers::each(size_t count, const std::function<Status(size_t)>& work) {
    if (count == 0) return {};
    if (count == 1) return work(0);
    {
        std::lock_guard lock(mutex_);
        work_ = &work;
        total_ = count;
        next_ = 0;
        failure_.reset();
        busy_ = threads_.size();
        call_++;
    }
    go_.notify_all();
    help();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
    if (failure_) return *failure_;
    return {};
}

}  // namespace ghost::core
