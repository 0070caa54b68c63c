// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/body.hpp"

#include <bit>
#include <cstring>

namespace kernet {

BodyPtr make_body(const void* bytes, size_t size) {
    auto body = std::make_shared<Body>(size);
    if (size > 0) std::memcpy(body->bytes.get(), bytes, size);
    return body;
}

void Body::GiveBack::operator()(uint8_t* bytes) const {
    if (store) {
        store->put(bytes, size);
    } else {
        delete[] bytes;
    }
}

size_t BodyStore::shelf_of(size_t room) {
    return static_cast<size_t>(std::countr_zero(room) - std::countr_zero(shortest));
}

BodyPtr BodyStore::get(size_t size) {
    const size_t room = std::bit_ceil(size);
    if (room < shortest || room > longest) return std::make_shared<Body>(size);
    uint8_t* bytes = nullptr;
    {
        std::lock_guard lock(mutex_);
        std::vector<uint8_t*>& shelf = shelves_[shelf_of(room)];
        if (!shelf.empty()) {
            bytes = shelf.back();  // the last one used: it may still be in a cache
            shelf.pop_back();
            kept_ -= room;
        }
    }
    if (!bytes) bytes = new uint8_t[room];
    return std::make_shared<Body>(size, bytes, shared_from_this());
}

void BodyStore::put(uint8_t* bytes, size_t size) {
    const size_t room = std::bit_ceil(size);
    {
        std::lock_guard lock(mutex_);
        if (kept_ + room <= most_kept) {
            shelves_[shelf_of(room)].push_back(bytes);
            kept_ += room;
            return;
        }
    }
    delete[] bytes;
}

size_t BodyStore::kept() const {
    std::lock_guard lock(mutex_);
    return kept_;
}

BodyStore::~BodyStore() {
    for (const std::vector<uint8_t*>& shelf : shelves_) {
        for (uint8_t* bytes : shelf) delete[] bytes;
    }
}

}  // namespace kernet
