// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/btl/regions.hpp"

#include <algorithm>

namespace kernet::btl {

Regions::Handle* Regions::add(const void* base, size_t size) {
    if (free_.empty()) {
        free_.push_back(static_cast<uint32_t>(slots_.size()));
        slots_.push_back(std::make_unique<Region>());
        slots_.back()->handle.id = slots_.size();
    }
    Handle* handle = &slots_[free_.back()]->handle;
    free_.pop_back();
    handle->base = reinterpret_cast<uint64_t>(base);
    handle->size = size;
    handle->ahead = 0;
    return handle;
}

Regions::Handle* Regions::offer(Peer* peer, const void* base, size_t size) {
    Handle* handle = add(base, size);
    handle->ahead = 1;
    Region* region = region_of(handle);
    region->peer = peer;
    region->missed = false;
    offers_.push_back(region);
    return handle;
}

void Regions::remove(Handle* handle) {
    Region* region = region_of(handle);
    if (handle->ahead) {
        std::erase(offers_, region);
        if (region->kept) region->peer->socket->own_body(token_of(region));
        region->kept = false;
        if (!region->missed && region->peer->missed > 0) region->peer->missed--;
    }
    const auto slot = static_cast<uint32_t>(handle->id) - 1;
    handle->id += uint64_t{1} << 32;
    handle->size = 0;
    free_.push_back(slot);
}

// 2, 4, ... 1024 regions go without.
void Regions::missed(uint32_t rank, uint64_t id) {
    const uint64_t slot = static_cast<uint32_t>(id) - uint64_t{1};
    if (slot >= slots_.size()) return;
    Region& region = *slots_[slot];
    if (region.handle.id != id || !region.handle.ahead || region.missed ||
        region.peer->socket->peer() != rank)
        return;
    region.missed = true;
    region.peer->missed = std::min(region.peer->missed + 1, most_missed);
    region.peer->skip = 1u << region.peer->missed;
}

bool Regions::covers(uint64_t id, uint64_t address, uint64_t size) const {
    const uint64_t slot = static_cast<uint32_t>(id) - uint64_t{1};
    if (slot >= slots_.size()) return false;
    const Handle& handle = slots_[slot]->handle;
    return handle.id == id && address >= handle.base && size <= handle.size &&
           address - handle.base <= handle.size - size;
}

void* Regions::token_of(Region* region) {
    return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(region) | 1);
}

void Regions::send_offers(const Peer* peer) {
    for (size_t i = 0; i < offers_.size();) {
        Region* region = offers_[i];
        if (peer && region->peer != peer) {
            i++;
            continue;
        }
        offers_.erase(offers_.begin() + static_cast<ptrdiff_t>(i));
        region->kept = true;
        const Handle& handle = region->handle;
        region->peer->socket->send_bulk(tag_offer, &handle.id, sizeof handle.id,
                                        reinterpret_cast<const void*>(handle.base),
                                        static_cast<size_t>(handle.size), token_of(region));
    }
}

void Regions::acknowledged(void* token) {
    reinterpret_cast<Region*>(reinterpret_cast<uintptr_t>(token) & ~uintptr_t{1})->kept = false;
}

}  // namespace kernet::btl
