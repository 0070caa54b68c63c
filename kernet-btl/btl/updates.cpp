// SPDX-License-Identifier: BSD-3-Clause
// Updates of windows on their way: see update.h.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.hpp"
#include "kernet-btl/btl/module.hpp"

namespace kernet::btl {

namespace {

// In front of what was there.
struct Answer {
    uint64_t cookie;
    uint64_t error;  // MPI's class; 0: done
};

constexpr size_t largest =
    sizeof(kernet_update_t) + kernet_update_runs * sizeof(kernet_run_t) + kernet_update_bytes;
static_assert(largest <= wire::max_message);

// Used inside the gate.
std::array<uint8_t, kernet_update_bytes> was;
std::array<uint8_t, largest> own;

size_t size_of(const Update& what) {
    return sizeof what.head + what.head.runs * sizeof(kernet_run_t) + what.bytes;
}

void write(uint8_t* to, const Update& what) {
    const size_t runs = what.head.runs * sizeof(kernet_run_t);
    std::memcpy(to, &what.head, sizeof what.head);
    if (runs > 0) std::memcpy(to + sizeof what.head, what.runs, runs);
    if (what.bytes > 0) std::memcpy(to + sizeof what.head + runs, what.data, what.bytes);
}

}  // namespace

void Module::update(Update what, const Pending& asked) {
    if (!asked.endpoint) return update_own(what, asked);
    if (asked.callback) what.head.cookie = keep(asked).cookie;
    Socket& socket = *asked.endpoint->socket;
    write(socket.reserve(size_of(what)), what);
    socket.commit(size_of(what), tag_update);
}

void Module::update_own(const Update& what, const Pending& asked) {
    size_t answered = 0;
    write(own.data(), what);
    const int error = kernet_update_apply(asked.peer, own.data(), size_of(what), was.data(),
                                          was.size(), &answered);
    if (!asked.callback) return;
    std::memcpy(asked.address, was.data(), std::min(answered, asked.size));
    asked.callback(&kernet_btl_module, nullptr, asked.address, nullptr, asked.context, nullptr,
                   error);
}

void Module::take_update(Socket& socket, const uint8_t* bytes, size_t size) {
    kernet_update_t head;
    size_t answered = 0;
    if (size < sizeof head) {
        ghost::log::error("btl kernet: malformed update from rank {}", socket.peer());
        return;
    }
    std::memcpy(&head, bytes, sizeof head);
    const int error =
        kernet_update_apply(socket.peer(), bytes, size, was.data(), was.size(), &answered);
    if (head.cookie == 0) return;
    const Answer answer{head.cookie, static_cast<uint64_t>(error)};
    uint8_t* room = socket.reserve(sizeof answer + answered);
    std::memcpy(room, &answer, sizeof answer);
    if (answered > 0) std::memcpy(room + sizeof answer, was.data(), answered);
    socket.commit(sizeof answer + answered, tag_updated);
}

void Module::note_updated(const Socket& socket, const uint8_t* bytes, size_t size) {
    Answer answer{};
    if (size >= sizeof answer) std::memcpy(&answer, bytes, sizeof answer);
    Pending* slot = size < sizeof answer ? nullptr : asked(socket, answer.cookie);
    if (!slot || (answer.error == 0 && size - sizeof answer != slot->size)) {
        ghost::log::error("btl kernet: rank {} has updated what nobody asked for", socket.peer());
        return;
    }
    if (answer.error == 0 && slot->size > 0)
        std::memcpy(slot->address, bytes + sizeof answer, slot->size);
    finish(*slot, static_cast<int>(answer.error));
}

}  // namespace kernet::btl
