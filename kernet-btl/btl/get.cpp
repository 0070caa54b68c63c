// SPDX-License-Identifier: BSD-3-Clause
// Reading a peer's registered memory: asked for, or offered by the peer ahead of that.
#include <algorithm>
#include <cstring>

#include "base/log.hpp"
#include "kernet-btl/btl/module.hpp"
#include "opal/constants.h"

namespace kernet::btl {

namespace {

struct GetRequest {
    uint64_t region;
    uint64_t address;
    uint64_t size;
    uint64_t cookie;
};

}  // namespace

int Module::get(const PendingGet& what, uint64_t remote, const void* remote_handle) {
    mca_btl_base_registration_handle_t handle;
    std::memcpy(&handle, remote_handle, sizeof handle);  // inside a packed header
    if (free_gets_.empty()) {
        free_gets_.push_back(static_cast<uint32_t>(gets_.size()));
        gets_.emplace_back();
    }
    const uint32_t slot = free_gets_.back();
    free_gets_.pop_back();
    PendingGet& get = gets_[slot];
    get = what;
    get.cookie = next_cookie_++ << 20 | slot;
    const bool whole = remote == handle.base && what.size == handle.size;
    if (handle.ahead && whole && !missed_.contains(what.peer, handle.id)) {
        get.offer = handle.id;
        awaiting_.push_back(slot);
        return OPAL_SUCCESS;
    }
    const GetRequest request{handle.id, remote, what.size, get.cookie};
    Socket& socket = *what.endpoint->socket;
    std::memcpy(socket.reserve(sizeof request), &request, sizeof request);
    socket.commit(sizeof request, tag_get);
    return OPAL_SUCCESS;
}

void Module::answer_get(Socket& socket, const uint8_t* bytes, size_t size) {
    GetRequest request;
    if (size != sizeof request) {
        ghost::log::error("btl kernet: malformed get from rank {}", socket.peer());
        return;
    }
    std::memcpy(&request, bytes, sizeof request);
    if (request.size == 0 || !regions.covers(request.region, request.address, request.size)) {
        ghost::log::error("btl kernet: rank {} asked for memory that is not registered",
                          socket.peer());
        return;
    }
    socket.send_bulk(tag_get, &request.cookie, sizeof request.cookie,
                     reinterpret_cast<const void*>(request.address), request.size, nullptr);
}

// A region's slot may have another one by now, and the peer can name only what was offered to it.
void Module::note_missed(const Socket& socket, const uint8_t* bytes, size_t size) {
    uint64_t region = 0;
    if (size != sizeof region) {
        ghost::log::error("btl kernet: malformed answer to an offer from rank {}", socket.peer());
        return;
    }
    std::memcpy(&region, bytes, sizeof region);
    regions.missed(socket.peer(), region);
}

PendingGet* Module::pending(const Socket& socket, uint8_t tag, const uint8_t* head,
                            size_t head_size) {
    uint64_t name = 0;
    if (head_size != sizeof name) return nullptr;
    std::memcpy(&name, head, sizeof name);
    if (tag == tag_offer) {
        for (const uint32_t slot : awaiting_) {
            if (gets_[slot].offer == name && gets_[slot].peer == socket.peer()) return &gets_[slot];
        }
        return nullptr;
    }
    const uint64_t slot = name & 0xfffff;
    if (tag != tag_get || slot >= gets_.size() || gets_[slot].cookie != name) return nullptr;
    return gets_[slot].peer == socket.peer() ? &gets_[slot] : nullptr;
}

uint8_t* Module::place(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size,
                       size_t size) {
    const PendingGet* get = pending(socket, tag, head, head_size);
    if (get && get->size == size) return static_cast<uint8_t*>(get->address);
    uint64_t region = 0;
    if (tag == tag_offer && !get && head_size == sizeof region) {
        std::memcpy(&region, head, sizeof region);
        missed_.add(socket.peer(), region);
        std::memcpy(socket.reserve(sizeof region), &region, sizeof region);
        socket.commit(sizeof region, tag_missed);
        return nullptr;
    }
    ghost::log::error("btl kernet: rank {} sent data nobody asked for", socket.peer());
    return nullptr;
}

void Module::placed(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size, uint8_t*,
                    size_t) {
    PendingGet* slot = pending(socket, tag, head, head_size);
    if (!slot) return;
    const PendingGet get = *slot;
    const auto number = static_cast<uint32_t>(slot - gets_.data());
    if (get.offer) std::erase(awaiting_, number);
    *slot = PendingGet{};
    free_gets_.push_back(number);
    get.callback(&kernet_btl_module, get.endpoint, get.address, get.handle, get.context, get.data,
                 OPAL_SUCCESS);
}

}  // namespace kernet::btl
