// SPDX-License-Identifier: BSD-3-Clause
// The part of a KerNet socket that only one with filters needs.
#include <utility>

#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/transport/socket.hpp"

namespace kernet {

namespace {

// So much is encoded ahead of the link; the rest of what is to be sent waits as it is, so that a
// long message is not there twice and its first pieces travel while the next are encoded.
constexpr size_t encoded_ahead = 512 * 1024;
// Rounds of encoding and sending in one call, which must not last.
constexpr int rounds = 4;

}  // namespace

// --- sending ---

void Socket::send_filtered(Frame* plain, bool more) {
    const bool first = waiting_.empty();
    filtered_->add(plain);
    backlog_ += plain->wire_size();
    encode_some();
    start_sending(first, more);
}

// Whenever something waits to be encoded, something encoded waits for the link: so whoever sends
// that comes by here again.
void Socket::encode_some() {
    while (filtered_->waits() && backlog_ - filtered_->bytes() < encoded_ahead) {
        const size_t before = filtered_->bytes();
        Frame* frame = filtered_->next(next_seq_);
        backlog_ -= before - filtered_->bytes();
        append(frame);
    }
}

bool Socket::flush_filtered() {
    for (int round = 0; round < rounds; round++) {
        const bool done = flush_link();
        encode_some();
        if (!done || waiting_.empty()) return done;
    }
    return false;
}

// --- receiving ---

// False: not to be believed, the link must go; a repetition may be better.
bool Socket::take_filtered(uint64_t seq, uint8_t tag, const uint8_t* bytes, size_t size) {
    Filtered::Arrived what;
    if (!filtered_->take(seq, tag, bytes, size, what)) return false;
    arrived(seq);
    Filtered::Long& coming = filtered_->coming;
    switch (what.part) {
        case filter::Part::whole:
            receiver_.deliver(*this, tag, what.bytes, what.size);
            break;
        case filter::Part::bulk_begins:
            coming.body = receiver_.place(*this, coming.tag, coming.head, coming.head_size,
                                          static_cast<size_t>(coming.size));
            break;
        case filter::Part::message_begins:
            break;
        case filter::Part::piece:
            coming.done += what.size;
            if (coming.done == coming.size) end_long();
            break;
    }
    return true;
}

void Socket::end_long() {
    Filtered::Long& coming = filtered_->coming;
    coming.begun = false;
    const auto size = static_cast<size_t>(coming.size);
    if (!coming.bulk) {
        receiver_.deliver(*this, coming.tag, coming.body, size);
    } else if (coming.body) {
        receiver_.placed(*this, coming.tag, coming.head, coming.head_size, coming.body, size);
    }
}

}  // namespace kernet
