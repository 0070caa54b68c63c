// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/transport/filtered.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/log.hpp"

namespace kernet {

namespace {

using filter::Part;

// Pieces large enough that frames do not count, small enough that one is encoded while another is
// on its way.
constexpr size_t longest_piece = 64 * 1024;

}  // namespace

// --- sending ---

void Filtered::add(Frame* plain) {
    plain_.push(plain);
    bytes_ += plain->wire_size();
}

Frame* Filtered::encode(uint64_t number, uint8_t tag, Part part, const uint8_t* bytes,
                        size_t size) {
    const filter::MessageId id{filters_.rank(), peer_, number, tag, part};
    Frame* frame = pool_.get(chain_.bound(size) + 1);
    const size_t made = chain_.encode(id, bytes, size, frame->bytes(), filters_.scratch());
    frame->bytes()[made] = static_cast<uint8_t>(part);
    // What waits is counted by the bytes that it has become, and must not hold more than these.
    frame = pool_.shrink(frame, made + 1);
    frame->header.type = wire::FrameType::data;
    frame->header.tag = tag;
    frame->header.length = made + 1;
    return frame;
}

Frame* Filtered::begin(Frame& plain, uint64_t number) {
    const uint64_t size = plain.bulk() ? plain.body_size : plain.header.length;
    uint8_t bytes[sizeof size + wire::max_bulk_head];
    std::memcpy(bytes, &size, sizeof size);
    if (plain.header.head > 0) std::memcpy(bytes + sizeof size, plain.bytes(), plain.header.head);
    return encode(number, plain.header.tag, plain.bulk() ? Part::bulk_begins : Part::message_begins,
                  bytes, sizeof size + plain.header.head);
}

Frame* Filtered::next(uint64_t number) {
    if (plain_.empty()) return nullptr;
    Frame& plain = *plain_.front();
    Frame* made;
    bool last = true;
    if (!plain.bulk() && !begun_ && fits(plain.header.length)) {
        made = encode(number, plain.header.tag, Part::whole, plain.bytes(), plain.header.length);
    } else if (!begun_) {
        made = begin(plain, number);
        begun_ = true;
        last = false;
    } else {
        const uint8_t* body = plain.bulk() ? plain.body : plain.bytes();
        const size_t size = plain.bulk() ? plain.body_size : plain.header.length;
        size_t piece = std::min(size - offset_, longest_piece);
        while (!fits(piece)) piece /= 2;
        made = encode(number, plain.header.tag, Part::piece, body + offset_, piece);
        offset_ += piece;
        bytes_ -= piece;
        last = offset_ == size;
    }
    if (!last) return made;
    made->token = plain.token;
    bytes_ -= plain.wire_size() - std::exchange(offset_, 0);
    begun_ = false;
    pool_.put(plain_.pop());
    return made;
}

void Filtered::own_body(const void* token) {
    for (Frame* frame = plain_.front(); frame; frame = frame->next) {
        if (frame->token != token) continue;
        frame->own_body();
        frame->token = nullptr;
    }
}

std::vector<void*> Filtered::drop() {
    std::vector<void*> tokens;
    while (!plain_.empty()) {
        Frame* frame = plain_.pop();
        if (frame->token) tokens.push_back(frame->token);
        pool_.put(frame);
    }
    bytes_ = offset_ = 0;
    begun_ = false;
    return tokens;
}

// --- receiving ---

size_t Filtered::room_for(Part part) const {
    switch (part) {
        case Part::whole:
            return wire::max_message;
        case Part::bulk_begins:
        case Part::message_begins:
            return sizeof(uint64_t) + wire::max_bulk_head;
        case Part::piece:
            break;
    }
    return static_cast<size_t>(std::min<uint64_t>(coming.size - coming.done, wire::max_message));
}

bool Filtered::take(uint64_t number, uint8_t tag, const uint8_t* bytes, size_t size, Arrived& out) {
    const std::string wrong = decode(number, tag, bytes, size, out);
    if (wrong.empty()) return true;
    // The peer repeats it: once more and once more if it never gets better.
    if (std::has_single_bit(++refused_)) {
        ghost::log::error("kernet: frame {} of rank {} is not delivered ({} so far): {}", number,
                          peer_, refused_, wrong);
    }
    return false;
}

// What is wrong with it; empty if it may be believed.
std::string Filtered::decode(uint64_t number, uint8_t tag, const uint8_t* bytes, size_t size,
                             Arrived& out) {
    if (size == 0 || bytes[size - 1] > static_cast<uint8_t>(Part::piece)) {
        return "it is not from filters";
    }
    out.part = static_cast<Part>(bytes[size - 1]);
    const bool is_piece = out.part == Part::piece;
    if (is_piece != coming.begun) return "it is not its turn";
    const filter::MessageId id{peer_, filters_.rank(), number, tag, out.part};
    out.bytes = is_piece && coming.body ? coming.body + coming.done : filters_.arrived();
    auto made =
        chain_.decode(id, bytes, size - 1, out.bytes, room_for(out.part), filters_.scratch());
    if (!made) return made.error().message();
    out.size = *made;
    if (out.part == Part::whole || (is_piece && out.size > 0)) return {};
    return !is_piece && begin(out, tag) ? "" : "it is malformed";
}

bool Filtered::begin(const Arrived& what, uint8_t tag) {
    const bool bulk = what.part == Part::bulk_begins;
    uint64_t size;
    if (what.size < sizeof size || what.size > sizeof size + (bulk ? wire::max_bulk_head : 0)) {
        return false;
    }
    std::memcpy(&size, what.bytes, sizeof size);
    if (size == 0 || size > (bulk ? wire::max_bulk_body : wire::max_message)) return false;
    coming.begun = true;
    coming.bulk = bulk;
    coming.tag = tag;
    coming.size = size;
    coming.done = 0;
    coming.head_size = static_cast<uint8_t>(what.size - sizeof size);
    std::memcpy(coming.head, what.bytes + sizeof size, coming.head_size);
    coming.body = nullptr;
    if (bulk) return true;
    coming.own.resize(size);
    coming.body = coming.own.data();
    return true;
}

}  // namespace kernet
