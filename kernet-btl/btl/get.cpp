// SPDX-License-Identifier: BSD-3-Clause
// Reading a peer's registered memory: asked for, or offered by the peer ahead of that.
#include <algorithm>
#include <cstring>
#include <utility>

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

Pending& Module::keep(const Pending& what) {
    if (free_pending_.empty()) {
        free_pending_.push_back(static_cast<uint32_t>(pending_.size()));
        pending_.emplace_back();
    }
    const uint32_t number = free_pending_.back();
    free_pending_.pop_back();
    Pending& slot = pending_[number];
    slot = what;
    slot.cookie = next_cookie_++ << 20 | number;
    return slot;
}

void Module::finish(Pending& slot, int status) {
    const Pending was = std::exchange(slot, Pending{});
    free_pending_.push_back(static_cast<uint32_t>(&slot - pending_.data()));
    was.callback(&kernet_btl_module, was.endpoint, was.address, was.handle, was.context, was.data,
                 status);
}

int Module::get(const Pending& what, uint64_t remote, const void* remote_handle) {
    mca_btl_base_registration_handle_t handle;
    std::memcpy(&handle, remote_handle, sizeof handle);  // inside a packed header
    Pending& get = keep(what);
    const bool whole = remote == handle.base && what.size == handle.size;
    if (handle.ahead && whole && !missed_.contains(what.peer, handle.id)) {
        get.offer = handle.id;
        awaiting_.push_back(static_cast<uint32_t>(&get - pending_.data()));
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

Pending* Module::asked(const Socket& socket, uint64_t cookie) {
    const uint64_t number = cookie & 0xfffff;
    if (number >= pending_.size() || pending_[number].cookie != cookie) return nullptr;
    return pending_[number].peer == socket.peer() ? &pending_[number] : nullptr;
}

Pending* Module::pending(const Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size) {
    uint64_t name = 0;
    if (head_size != sizeof name) return nullptr;
    std::memcpy(&name, head, sizeof name);
    if (tag == tag_get) return asked(socket, name);
    for (const uint32_t slot : awaiting_) {
        Pending& get = pending_[slot];
        if (tag == tag_offer && get.offer == name && get.peer == socket.peer()) return &get;
    }
    return nullptr;
}

uint8_t* Module::place(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size,
                       size_t size) {
    if (tag == tag_put) return place_put(socket, head, head_size, size);
    const Pending* get = pending(socket, tag, head, head_size);
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
    if (tag == tag_put) return put_is_placed(socket, head, head_size);
    Pending* slot = pending(socket, tag, head, head_size);
    if (!slot) return;
    if (slot->offer) std::erase(awaiting_, static_cast<uint32_t>(slot - pending_.data()));
    finish(*slot, OPAL_SUCCESS);
}

}  // namespace kernet::btl
