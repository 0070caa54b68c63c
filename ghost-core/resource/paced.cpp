// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/paced.hpp"

#include <algorithm>
#include <chrono>

#include "base/clock.hpp"

namespace ghost::core {
namespace {

constexpr size_t piece_bytes = 1 << 20;  // so that the pace is even, and an interrupt is soon seen

Error broken_off() {
    return make_error(Code::refused, "write ghost", {}, "it was called off");
}

}  // namespace

PacedResource::PacedResource(std::unique_ptr<Resource> inner, uint64_t rate,
                             std::function<void(uint64_t bytes)> progress)
    : inner_(std::move(inner)), rate_(rate), progress_(std::move(progress)) {}

Status PacedResource::wait_for_turn(size_t size) {
    std::unique_lock lock(mutex_);
    if (rate_ != 0) {
        const int64_t now = monotonic_us();
        if (begin_us_ == 0) begin_us_ = now;
        const auto due =
            begin_us_ + static_cast<int64_t>(static_cast<double>(bytes_) * 1e6 / double(rate_));
        changed_.wait_for(lock, std::chrono::microseconds(std::max<int64_t>(due - now, 0)),
                          [this] { return interrupted_; });
    }
    bytes_ += size;
    if (interrupted_) return broken_off();
    return {};
}

Status PacedResource::write(const void* data, size_t size) {
    const auto* from = static_cast<const char*>(data);
    while (size > 0) {
        const size_t part = std::min(size, piece_bytes);
        GHOST_TRY(wait_for_turn(part));
        GHOST_TRY(inner_->write(from, part));
        if (progress_) progress_(bytes_);
        from += part;
        size -= part;
    }
    return {};
}

Status PacedResource::finalize() {
    {
        std::lock_guard lock(mutex_);
        if (interrupted_) return broken_off();
    }
    return inner_->finalize();
}

void PacedResource::interrupt() {
    {
        std::lock_guard lock(mutex_);
        interrupted_ = true;
    }
    changed_.notify_all();
    inner_->interrupt();
}

}  // namespace ghost::core
