// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/filter/chain.hpp"

#include <cstring>

namespace kernet::filter {

size_t Chain::bound(size_t size, size_t stages) const {
    for (size_t i = 0; i < stages; i++) {
        if (!filters_[i]->only_looks()) size = filters_[i]->bound(size);
    }
    return size;
}

size_t Chain::encode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out,
                     Scratch& scratch) {
    size_t last = filters_.size();  // the last stage that changes the bytes
    for (size_t i = 0; i < filters_.size(); i++) {
        if (!filters_[i]->only_looks()) last = i;
    }
    const uint8_t* at = in;
    size_t turn = 0;
    for (size_t i = 0; i < filters_.size(); i++) {
        Filter& filter = *filters_[i];
        if (filter.only_looks()) {
            filter.look(id, at, size);
            continue;
        }
        uint8_t* to = i == last ? out : scratch.get(turn++ % 2, filter.bound(size));
        size = filter.encode(id, at, size, to);
        at = to;
    }
    if (at != out && size > 0) std::memcpy(out, at, size);
    return size;
}

Result<size_t> Chain::decode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out,
                             size_t room, Scratch& scratch) {
    size_t first = filters_.size();  // the last stage on this way that changes the bytes
    for (size_t i = filters_.size(); i-- > 0;) {
        if (!filters_[i]->only_looks()) first = i;
    }
    const uint8_t* at = in;
    size_t turn = 0;
    if (first == filters_.size()) {
        if (size > room) return ghost::make_error(ghost::Code::corrupt, "keep a message's size");
        if (size > 0) std::memcpy(out, in, size);
        at = out;
    }
    for (size_t i = filters_.size(); i-- > 0;) {
        Filter& filter = *filters_[i];
        if (filter.only_looks()) {
            filter.look(id, at, size);
            continue;
        }
        const size_t most = i == first ? room : bound(room, i);
        uint8_t* to = i == first ? out : scratch.get(turn++ % 2, most);
        auto made = filter.decode(id, at, size, to, most);
        if (!made) return made.error();
        size = *made;
        at = to;
    }
    return size;
}

void Chain::suspend() {
    for (auto& filter : filters_) filter->suspend();
}

void Chain::wakeup() {
    for (auto& filter : filters_) filter->wakeup();
}

void Chain::begin_life(const SocketId& socket) {
    for (auto& filter : filters_) filter->begin_life(socket);
}

}  // namespace kernet::filter
