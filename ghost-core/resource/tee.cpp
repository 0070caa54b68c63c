// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/tee.hpp"

namespace ghost::core {

Status TeeResource::both(const std::function<Status(Resource&)>& action) {
    action_ = action;
    worker_->start(0);
    auto status = action(*first_);
    worker_->wait(0);
    if (!status.ok()) return status;
    if (failure_) return *failure_;
    return {};
}

Status TeeResource::init() {
    if (use_ == Use::write) {
        worker_ = std::make_unique<SlotThreads>(1, 1, [this](size_t) {
            if (auto status = action_(*second_); !status.ok()) failure_ = status.error();
        });
        return both([](Resource& one) { return one.init(); });
    }
    auto status = first_->init();
    if (status.ok()) return {};
    from_second_ = second_->init().ok();
    if (from_second_) return {};
    return status;
}

Status TeeResource::write(const void* data, size_t size) {
    return both([&](Resource& one) { return one.write(data, size); });
}

Result<size_t> TeeResource::read(void* data, size_t size) {
    return (from_second_ ? second_ : first_)->read(data, size);
}

Status TeeResource::finalize() {
    if (use_ == Use::read) return {};
    return both([](Resource& one) { return one.finalize(); });
}

void TeeResource::interrupt() {
    first_->interrupt();
    second_->interrupt();
}

}  // namespace ghost::core
