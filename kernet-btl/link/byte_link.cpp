// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/byte_link.hpp"

#include <algorithm>
#include <cstring>

namespace kernet {

namespace {

constexpr int max_iov = 64;

// Fills `iov` from `first` up to `end`, `offset` bytes of the first being out; stamps headers not
// yet begun.
int gather(Frame* first, const Frame* end, size_t offset, uint64_t ack, uint32_t epoch,
           iovec* iov) {
    int count = 0;
    for (Frame* frame = first; frame != end && count + 2 <= max_iov; frame = frame->next) {
        const size_t front = wire::frame_header_size + frame->byte_count();
        if (offset == 0) {
            frame->header.ack = ack;
            frame->header.epoch = epoch;
        }
        if (offset < front) {
            iov[count++] = {reinterpret_cast<uint8_t*>(&frame->header) + offset, front - offset};
        }
        if (frame->body_size > 0) {
            const size_t done = offset > front ? offset - front : 0;
            iov[count++] = {const_cast<uint8_t*>(frame->body) + done, frame->body_size - done};
        }
        offset = 0;
    }
    return count;
}

}  // namespace

ByteLink::ByteLink(uint64_t own_epoch, uint64_t peer_epoch)
    : Link({}),
      own_epoch_(static_cast<uint32_t>(own_epoch)),
      peer_epoch_(static_cast<uint32_t>(peer_epoch)),
      buffer_(new (Aligned::how) uint8_t[buffer_size]) {}

ssize_t ByteLink::write_until(const Frame* end, Frame* first, size_t offset, uint64_t ack) {
    iovec iov[max_iov];
    return send_bytes(iov, gather(first, end, offset, ack, own_epoch_, iov));
}

bool ByteLink::write_control(wire::FrameType type, uint64_t ack) {
    wire::FrameHeader header;
    header.type = type;
    header.ack = ack;
    header.epoch = own_epoch_;
    return send_whole(&header, sizeof header);
}

bool ByteLink::believe(const LinkEvents& events, const wire::FrameHeader& header) {
    wire::FrameLimits limits = events.limits();
    limits.epoch = peer_epoch_;
    if (awaits_) limits.received = UINT64_MAX - 1;
    wrong_ = wire::check(header, limits);
    return !wrong_;
}

bool ByteLink::too_early(const LinkEvents& events, const wire::FrameHeader& header) const {
    return awaits_ && header.seq > events.limits().received + 1;
}

void ByteLink::compact() {
    if (begin_ == end_) {
        begin_ = end_ = 0;
    } else if (buffer_size - end_ < wire::frame_header_size + wire::max_message) {
        std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
}

bool ByteLink::take_first_ack(LinkEvents& events) {
    if (begin_ != end_ || body_left_ > 0) return true;
    uint8_t bytes[wire::frame_header_size];
    const ssize_t seen = peek_bytes(bytes, sizeof bytes);
    if (seen < 0) return false;
    if (static_cast<size_t>(seen) < sizeof bytes) return true;
    const wire::FrameHeader header = wire::decode(bytes);
    if (!believe(events, header)) return false;
    if (header.type != wire::FrameType::ack) return true;
    const iovec whole{bytes, sizeof bytes};
    if (receive_bytes(&whole, 1) != sizeof bytes) return false;
    events.on_ack(header.ack);
    return true;
}

Link::Poll ByteLink::poll(LinkEvents& events) {
    Poll result = Poll::idle;
    if (held_ && !parse_held(events, result)) return Poll::broken;
    for (int round = 0; round < 4 && !held_; round++) {
        if (body_left_ > 0) {
            const Poll body = receive_body(events);
            if (body == Poll::broken) return body;
            if (body == Poll::idle) return result;
            result = Poll::progress;
        } else {
            compact();
            const iovec room{buffer_.get() + end_, buffer_size - end_};
            const ssize_t got = receive_bytes(&room, 1);
            if (got == 0) return result;
            if (got < 0) return Poll::broken;
            end_ += static_cast<size_t>(got);
            result = Poll::progress;
            if (!parse(events)) return Poll::broken;
            if (static_cast<size_t>(got) < room.iov_len && body_left_ == 0) return result;
            continue;
        }
        if (!parse(events)) return Poll::broken;
    }
    return result;
}

// What had to wait for another link: perhaps its turn has come.
bool ByteLink::parse_held(LinkEvents& events, Poll& result) {
    const size_t before = begin_;
    held_ = false;
    if (!parse(events)) return false;
    if (begin_ != before) result = Poll::progress;
    return true;
}

// Reads body bytes to their place and, by the same call, what follows them into the buffer.
Link::Poll ByteLink::receive_body(LinkEvents& events) {
    iovec iov[2];
    int count = 0;
    const size_t want = static_cast<size_t>(body_left_);
    if (body_) {
        iov[count++] = {body_, want};
        iov[count++] = {buffer_.get(), buffer_size};
    } else {
        iov[count++] = {buffer_.get(), std::min(want, buffer_size)};
    }
    // Everything read before the body began has been taken out of the buffer by then.
    begin_ = end_ = 0;
    const ssize_t got = receive_bytes(iov, count);
    if (got <= 0) return got < 0 ? Poll::broken : Poll::idle;
    const size_t used = std::min(static_cast<size_t>(got), want);
    if (body_) {
        body_ += used;
        end_ = static_cast<size_t>(got) - used;
    }
    body_left_ -= used;
    if (body_left_ == 0) finish_bulk(events);
    return Poll::progress;
}

void ByteLink::finish_bulk(LinkEvents& events) {
    body_ = nullptr;
    came();
    events.on_bulk_done(bulk_);
}

bool ByteLink::begin_bulk(LinkEvents& events, const wire::FrameHeader& header) {
    bulk_ = header;
    body_ = events.on_bulk(header, buffer_.get() + begin_);
    begin_ += header.head;
    body_left_ = header.length - header.head;
    const size_t here = static_cast<size_t>(std::min<uint64_t>(end_ - begin_, body_left_));
    if (body_) {
        std::memcpy(body_, buffer_.get() + begin_, here);
        body_ += here;
    }
    begin_ += here;
    body_left_ -= here;
    if (body_left_ == 0) finish_bulk(events);
    return body_left_ == 0;
}

// Hands out every whole frame in the buffer. False if the peer breaks the rules.
bool ByteLink::parse(LinkEvents& events) {
    while (body_left_ == 0 && end_ - begin_ >= wire::frame_header_size) {
        const wire::FrameHeader header = wire::decode(buffer_.get() + begin_);
        if (!believe(events, header)) return false;
        held_ = too_early(events, header);
        if (held_) return true;
        const size_t have = end_ - begin_ - wire::frame_header_size;
        comes(header.length);
        if (header.type == wire::FrameType::bulk) {
            if (have < header.head) return true;
            events.on_ack(header.ack);
            begin_ += wire::frame_header_size;
            if (!begin_bulk(events, header)) return true;
            continue;
        }
        if (have < header.length) return true;
        events.on_ack(header.ack);
        uint8_t* bytes = buffer_.get() + begin_ + wire::frame_header_size;
        begin_ += wire::frame_header_size + static_cast<size_t>(header.length);
        if (header.type == wire::FrameType::data) {
            came();
            const auto size = static_cast<size_t>(header.length) - header.head;
            if (!events.on_data(header.seq, header.tag, bytes + header.head, size)) return false;
        } else if (header.type != wire::FrameType::ack) {
            events.on_control(header.type);
        }
    }
    return true;
}

}  // namespace kernet
