// SPDX-License-Identifier: BSD-3-Clause
// Puts and atomic operations in a peer's registered memory, for windows (Open MPI's osc rdma).
//
// The peer's progress applies them and says when it has: a put is complete for its sender when it
// is in the peer's memory, which is what MPI_Win_flush waits for. A stream gives each message once,
// so nothing is applied twice, whatever became of a link in between. docs/WIRE.md, "Put, atomics".
#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/log.hpp"
#include "kernet-btl/btl/module.hpp"
#include "opal/constants.h"

namespace kernet::btl {

namespace {

struct Target {
    uint64_t region;
    uint64_t address;
    uint64_t cookie;
};

struct AtomicRequest {
    Target target;
    Atomic operation;
};

struct Done {
    uint64_t cookie;
    uint64_t was;
    uint64_t refused;
};

// Up to this size a put goes as one message with its data, which is the caller's again at once;
// what is shorter than the second is copied in less time than a gather write takes.
constexpr size_t short_put = 64 * 1024;
constexpr size_t shortest_put = 4096;

template <typename T>
bool read(const uint8_t* bytes, size_t size, T& what) {
    if (size != sizeof what) return false;
    std::memcpy(&what, bytes, sizeof what);
    return true;
}

uint64_t region_of(const void* remote_handle) {
    mca_btl_base_registration_handle_t handle;
    std::memcpy(&handle, remote_handle, sizeof handle);
    return handle.id;
}

void say_done(Socket& socket, uint64_t cookie, uint64_t was, bool refused) {
    const Done done{cookie, was, refused ? uint64_t{1} : 0};
    std::memcpy(socket.reserve(sizeof done), &done, sizeof done);
    socket.commit(sizeof done, tag_done);
}

void refuse(Socket& socket, const Target& target) {
    ghost::log::error("btl kernet: rank {} wants to change memory that is not registered",
                      socket.peer());
    say_done(socket, target.cookie, 0, true);
}

// What was there before. Threads of this process may use processor instructions on the same word.
uint64_t apply(uint64_t address, const Atomic& operation) {
    std::atomic_ref<uint64_t> word(*reinterpret_cast<uint64_t*>(address));
    switch (operation.kind) {
        case Atomic::add:
            return word.fetch_add(operation.operand);
        case Atomic::bit_and:
            return word.fetch_and(operation.operand);
        case Atomic::bit_or:
            return word.fetch_or(operation.operand);
        case Atomic::bit_xor:
            return word.fetch_xor(operation.operand);
        case Atomic::swap:
            return word.exchange(operation.operand);
        default:
            break;
    }
    uint64_t was = operation.compare;
    word.compare_exchange_strong(was, operation.operand);
    return was;
}

void call_back(const Pending& what) {
    what.callback(&kernet_btl_module, nullptr, what.address, what.handle, what.context, what.data,
                  OPAL_SUCCESS);
}

}  // namespace

int Module::get_own(const Pending& what, uint64_t address) {
    std::memcpy(what.address, reinterpret_cast<const void*>(address), what.size);
    call_back(what);
    return OPAL_SUCCESS;
}

int Module::put(const Pending& what, uint64_t remote, const void* remote_handle) {
    if (!what.endpoint || what.size == 0) {
        if (what.size) std::memcpy(reinterpret_cast<void*>(remote), what.address, what.size);
        call_back(what);
        return OPAL_SUCCESS;
    }
    Socket& socket = *what.endpoint->socket;
    const Target target{region_of(remote_handle), remote, keep(what).cookie};
    if (what.size > short_put) {
        socket.send_bulk(tag_put, &target, sizeof target, what.address, what.size, nullptr);
    } else if (what.size >= shortest_put) {
        socket.send_pieces(tag_put, &target, sizeof target, what.address, what.size);
    } else {
        uint8_t* room = socket.reserve(sizeof target + what.size);
        std::memcpy(room, &target, sizeof target);
        std::memcpy(room + sizeof target, what.address, what.size);
        socket.commit(sizeof target + what.size, tag_put);
    }
    return OPAL_SUCCESS;
}

Pending::Kind Locks::asked(uint32_t peer, uint64_t word, const Atomic& operation) {
    const auto lock = std::pair(peer, word);
    switch (operation.kind) {
        case Atomic::compare_swap:
            return operation.compare == 0 && operation.operand == exclusive ? Pending::Kind::lock
                                                                            : Pending::Kind::fetch;
        case Atomic::add: {
            const auto found = std::find(held_.begin(), held_.end(), lock);
            if (found == held_.end()) break;
            if (operation.operand != exclusive) return Pending::Kind::lock_again;
            held_.erase(found);  // the sum of both is 0
            break;
        }
        default:
            break;
    }
    return Pending::Kind::fetch;
}

uint64_t Locks::answered(const Pending& operation, uint64_t was) {
    if (operation.kind == Pending::Kind::lock_again) return was & ~exclusive;
    if (operation.kind == Pending::Kind::lock && was == 0)
        held_.emplace_back(operation.peer, operation.remote);
    return was;
}

int Module::atomic(Pending what, const Atomic& operation, uint64_t remote,
                   const void* remote_handle) {
    what.remote = remote;
    what.kind = locks_.asked(what.peer, remote, operation);
    if (!what.endpoint) {
        const uint64_t was = locks_.answered(what, apply(remote, operation));
        if (what.address) std::memcpy(what.address, &was, sizeof was);
        call_back(what);
        return OPAL_SUCCESS;
    }
    Socket& socket = *what.endpoint->socket;
    const AtomicRequest request{{region_of(remote_handle), remote, keep(what).cookie}, operation};
    std::memcpy(socket.reserve(sizeof request), &request, sizeof request);
    socket.commit(sizeof request, tag_atomic);
    return OPAL_SUCCESS;
}

void Module::take_put(Socket& socket, const uint8_t* bytes, size_t size) {
    Target target;
    if (size <= sizeof target) {
        ghost::log::error("btl kernet: malformed put from rank {}", socket.peer());
        return;
    }
    std::memcpy(&target, bytes, sizeof target);
    const size_t data = size - sizeof target;
    if (!regions.covers(target.region, target.address, data)) return refuse(socket, target);
    std::memcpy(reinterpret_cast<void*>(target.address), bytes + sizeof target, data);
    say_done(socket, target.cookie, 0, false);
}

uint8_t* Module::place_put(Socket& socket, const uint8_t* head, size_t head_size, size_t size) {
    Target target;
    if (!read(head, head_size, target)) {
        ghost::log::error("btl kernet: malformed put from rank {}", socket.peer());
        return nullptr;
    }
    if (regions.covers(target.region, target.address, size))
        return reinterpret_cast<uint8_t*>(target.address);
    refuse(socket, target);
    return nullptr;
}

void Module::put_is_placed(Socket& socket, const uint8_t* head, size_t head_size) {
    if (Target target; read(head, head_size, target)) say_done(socket, target.cookie, 0, false);
}

void Module::apply_atomic(Socket& socket, const uint8_t* bytes, size_t size) {
    AtomicRequest request;
    if (!read(bytes, size, request) || request.operation.kind < Atomic::add ||
        request.operation.kind > Atomic::compare_swap) {
        ghost::log::error("btl kernet: malformed atomic operation from rank {}", socket.peer());
        return;
    }
    const Target& target = request.target;
    if (target.address % sizeof(uint64_t) != 0 ||
        !regions.covers(target.region, target.address, sizeof(uint64_t)))
        return refuse(socket, target);
    say_done(socket, target.cookie, apply(target.address, request.operation), false);
}

void Module::note_done(const Socket& socket, const uint8_t* bytes, size_t size) {
    Done done;
    Pending* slot = read(bytes, size, done) ? asked(socket, done.cookie) : nullptr;
    if (!slot) {
        ghost::log::error("btl kernet: rank {} has done what nobody asked for", socket.peer());
        return;
    }
    if (slot->kind != Pending::Kind::transfer) {
        const uint64_t was = done.refused ? done.was : locks_.answered(*slot, done.was);
        if (slot->address) std::memcpy(slot->address, &was, sizeof was);
    }
    finish(*slot, done.refused ? OPAL_ERROR : OPAL_SUCCESS);
}

}  // namespace kernet::btl
