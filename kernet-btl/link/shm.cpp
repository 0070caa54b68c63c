// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/shm.hpp"

#include <algorithm>
#include <cstring>

#include "base/log.hpp"

namespace kernet {

namespace {

constexpr int lines_per_poll = 32;  // so that other peers get their turn

}  // namespace

ShmLink::ShmLink(std::unique_ptr<RingMapping> map, RingPieces pieces)
    : Link({.in_place = true, .quick = true}),
      map_(std::move(map)),
      rx_(*map_, map_->creator()),
      tx_(*map_, map_->creator() ? 0 : 1, &rx_),
      pieces_(pieces) {
    point();
    listen();
}

// --- sending ---

void ShmLink::commit(size_t size, uint8_t tag, uint64_t seq) {
    put(size, tag, LineKind::data, seq);
}

// Counts bytes as a stream would have them: a frame that is in the ring whole has all of its own.
ssize_t ShmLink::write(Frame* first, size_t offset, uint64_t) {
    size_t wrote = 0;
    for (const Frame* frame = first; frame; frame = frame->next) {
        const size_t done = frame->bulk() ? put_bulk(*frame, offset) : put_message(*frame);
        wrote += done - offset;
        if (done < frame->wire_size()) break;
        offset = 0;
    }
    return static_cast<ssize_t>(wrote);
}

// Returns how much of the frame is in the ring: all or nothing.
size_t ShmLink::put_message(const Frame& frame) {
    const size_t skipped = frame.header.head;
    const size_t front = frame.byte_count() - skipped;
    uint8_t* room = tx_.reserve(front + frame.body_size);
    if (!room) return 0;
    std::memcpy(room, frame.bytes() + skipped, front);
    if (frame.body_size > 0) std::memcpy(room + front, frame.body, frame.body_size);
    put(front + frame.body_size, frame.header.tag, LineKind::data, frame.header.seq);
    return frame.wire_size();
}

// The same, piece by piece.
size_t ShmLink::put_bulk(const Frame& frame, size_t offset) {
    const wire::FrameHeader& header = frame.header;
    const size_t before_body = wire::frame_header_size + header.head;
    const uint64_t whole = frame.body_size;
    if (offset == 0) {
        const size_t size = sizeof whole + header.head;
        uint8_t* room = tx_.reserve(size);
        if (!room) return 0;
        std::memcpy(room, &whole, sizeof whole);
        if (header.head > 0) std::memcpy(room + sizeof whole, frame.bytes(), header.head);
        put(size, header.tag, LineKind::bulk_head, header.seq);
        offset = before_body;
    }
    // Small enough that the reader copies one while the next is written, large enough that lines do
    // not count.
    const size_t piece =
        std::clamp<size_t>((whole / 4 + 63) & ~size_t{63}, pieces_.least, pieces_.most);
    for (size_t done = offset - before_body; done < whole; offset = before_body + done) {
        const size_t size = std::min<size_t>(piece, whole - done);
        uint8_t* room = tx_.reserve(size);
        if (!room) return offset;
        std::memcpy(room, frame.body + done, size);
        put(size, header.tag, LineKind::bulk_piece, header.seq);
        done += size;
    }
    bulks_.push_back({header.seq, tx_.position()});
    listen();
    return offset;
}

bool ShmLink::write_control(wire::FrameType type, uint64_t ack) {
    if (type != wire::FrameType::ack || begun_) return true;
    begun_ = true;
    received_ = ack;
    std::memcpy(tx_.reserve(sizeof ack), &ack, sizeof ack);  // an empty ring has room for it
    put(sizeof ack, 0, LineKind::resume, 0);
    return true;
}

void ShmLink::acknowledge(LinkEvents& events, uint64_t consumed) {
    while (!bulks_.empty() && bulks_.front().end <= consumed) {
        const uint64_t seq = bulks_.front().seq;
        bulks_.pop_front();
        events.on_ack(seq);
    }
}

// The peer may be reading meanwhile, so the count of what it has consumed is read once: a bulk
// frame it finished between two readings would be in the way of all that come after it. What it
// takes after that is sent again and dropped by its number.
void ShmLink::take_back(LinkEvents& events, FramePool& pool, FrameQueue& tail) {
    const uint64_t next_seq = events.limits().sent + 1;
    const uint64_t consumed = tx_.consumed();
    acknowledge(events, consumed);
    LineView line;
    for (uint64_t number = consumed; number < tx_.position(); number = tx_.after(number, line)) {
        if (!tx_.view(number, line)) {
            ghost::log::error("kernet: a ring is spoilt: its tail is lost");
            return;
        }
        if (line.kind != LineKind::data) continue;
        Frame* frame = pool.get(line.length);
        frame->header.type = wire::FrameType::data;
        frame->header.tag = line.tag;
        frame->header.length = line.length;
        frame->header.seq =
            next_seq - static_cast<uint32_t>(static_cast<uint32_t>(next_seq) - line.seq);
        std::memcpy(frame->bytes(), line.data, line.length);
        tail.push(frame);
    }
}

// --- receiving ---

Link::Poll ShmLink::poll(LinkEvents& events) {
    int lines = 0;
    while (lines < lines_per_poll && rx_.ready()) {
        LineView line;
        if (!rx_.view(line) || !take(line, events)) {
            wrong_ = "malformed line in the ring";
            return Poll::broken;
        }
        rx_.advance(line);
        lines++;
    }
    if (!bulks_.empty()) acknowledge(events, tx_.consumed());
    listen();
    return lines > 0 ? Poll::progress : Poll::idle;
}

bool ShmLink::take_other(const LineView& line, int32_t ahead, LinkEvents& events) {
    if (line.kind == LineKind::resume) return take_resume(line, events);
    if (ahead != 1) return ahead < 1;  // repeated
    return line.kind == LineKind::bulk_head ? begin_bulk(line, events) : take_piece(line, events);
}

bool ShmLink::take_resume(const LineView& line, LinkEvents& events) {
    uint64_t seen;
    if (line.length != sizeof seen) return false;
    std::memcpy(&seen, line.data, sizeof seen);
    if (seen > events.limits().sent) return false;
    events.on_ack(seen);
    return true;
}

bool ShmLink::begin_bulk(const LineView& line, LinkEvents& events) {
    uint64_t size;
    if (line.length < sizeof size || line.length > sizeof size + wire::max_bulk_head) return false;
    std::memcpy(&size, line.data, sizeof size);
    if (size == 0 || size > wire::max_bulk_body) return false;
    bulk_ = wire::FrameHeader{};
    bulk_.type = wire::FrameType::bulk;
    bulk_.tag = line.tag;
    bulk_.head = static_cast<uint8_t>(line.length - sizeof size);
    bulk_.length = bulk_.head + size;
    bulk_.seq = received_ + 1;
    body_left_ = size;
    body_ = events.on_bulk(bulk_, line.data + sizeof size);
    return true;
}

bool ShmLink::take_piece(const LineView& line, LinkEvents& events) {
    if (bulk_.seq != received_ + 1 || line.length > body_left_) return false;
    if (body_) {
        std::memcpy(body_, line.data, line.length);
        body_ += line.length;
    }
    body_left_ -= line.length;
    if (body_left_ > 0) return true;
    received_++;
    events.on_bulk_done(bulk_);
    return true;
}

bool ShmLink::take_first_ack(LinkEvents& events) {
    LineView line;
    if (!rx_.ready() || !rx_.view(line) || line.kind != LineKind::resume) return true;
    if (!take_resume(line, events)) return false;
    rx_.advance(line);
    listen();
    return true;
}

}  // namespace kernet
