// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/units.hpp"

#include <algorithm>
#include <cstring>

namespace ghost::core {

Status UnitResource::init() {
    for (size_t i = 0; i < slots_.size(); i++) {
        slots_[i].index = i;
        slots_[i].raw.resize(unit_bytes);
    }
    GHOST_TRY(open());
    workers_ = std::make_unique<SlotThreads>(slots_.size(), slots_.size(),
                                             [this](size_t i) { work(slots_[i]); });
    return {};
}

// The slot's unit leaves; it is the oldest one. After a failure nothing leaves any more.
Status UnitResource::finish(Slot& slot) {
    workers_->wait(slot.index);
    if (!failure_ && slot.error) failure_ = slot.error;
    if (failure_) return *failure_;
    emitted_++;
    auto status = emit(slot);
    if (!status.ok()) failure_ = status.error();
    return status;
}

Status UnitResource::write(const void* data, size_t size) {
    if (failure_) return *failure_;
    const auto* from = static_cast<const char*>(data);
    while (size > 0) {
        auto& slot = slot_at(unit_);
        if (within_ == 0 && unit_ >= slots_.size()) GHOST_TRY(finish(slot));
        const size_t part = std::min(size, unit_bytes - within_);
        std::memcpy(slot.raw.data() + within_, from, part);
        within_ += part;
        from += part;
        size -= part;
        if (within_ < unit_bytes) continue;
        slot.size = within_;
        slot.number = unit_++;
        within_ = 0;
        workers_->start(slot.index);
    }
    return {};
}

Status UnitResource::finalize() {
    if (use_ == Use::read) return {};
    if (within_ > 0) {
        auto& slot = slot_at(unit_);
        slot.size = within_;
        slot.number = unit_++;
        within_ = 0;
        workers_->start(slot.index);
    }
    if (failure_) return *failure_;
    while (emitted_ < unit_) GHOST_TRY(finish(slot_at(emitted_)));
    return close();
}

Status UnitResource::refill(Slot& slot) {
    if (ended_) return {};
    slot.number = loaded_;
    slot.size = 0;
    auto more = load(slot);
    if (!more) return more.error();
    ended_ = !*more;
    if (ended_) return {};
    loaded_++;
    workers_->start(slot.index);
    return {};
}

Result<size_t> UnitResource::read(void* data, size_t size) {
    while (loaded_ < unit_ + slots_.size() && !ended_) GHOST_TRY(refill(slot_at(loaded_)));
    if (unit_ == loaded_) return size_t{0};
    auto& slot = slot_at(unit_);
    workers_->wait(slot.index);
    if (slot.error) return *slot.error;
    const size_t part = std::min(size, slot.size - within_);
    std::memcpy(data, slot.raw.data() + within_, part);
    within_ += part;
    if (within_ == slot.size && part > 0) {
        unit_++;
        within_ = 0;
    }
    if (part == 0) GHOST_TRY(check_rest());  // work() makes an empty unit of the end
    return part;
}

// What was asked for ahead has to have ended too.
Status UnitResource::check_rest() {
    for (uint64_t number = unit_ + 1; number < loaded_; number++) {
        auto& slot = slot_at(number);
        workers_->wait(slot.index);
        if (slot.error) return *slot.error;
        if (slot.size > 0)
            return make_error(Code::corrupt, "read ghost", {}, "some of its parts end too early");
    }
    return {};
}

}  // namespace ghost::core
