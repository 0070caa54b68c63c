// SPDX-License-Identifier: BSD-3-Clause
// Link `shm`: the two rings of one memory file as a link (ring.hpp; docs/WIRE.md, "Link shm").
//
// Messages are written in place and stay in the ring until the other end has taken them, so nothing
// but bulk frames is kept outside it. A bulk frame goes as a line with its head and lines with
// pieces of its body, which the reader copies while the next ones are written.
#pragma once

#include <deque>
#include <memory>

#include "kernet-btl/link/link.hpp"
#include "kernet-btl/link/ring.hpp"

namespace kernet {

class ShmLink final : public Link {
  public:
    ShmLink(std::unique_ptr<RingMapping> map, RingPieces pieces);

    uint8_t* reserve(size_t size) override { return tx_.reserve(size); }
    void commit(size_t size, uint8_t tag, uint64_t seq) override;
    void take_back(LinkEvents& events, FramePool& pool, FrameQueue& tail) override;
    bool keeps() override { return tx_.consumed() != tx_.position(); }

    ssize_t write(Frame* first, size_t offset, uint64_t ack) override;
    bool write_control(wire::FrameType type, uint64_t ack) override;
    bool take_first_ack(LinkEvents& events) override;
    Poll poll(LinkEvents& events) override;

    const char* wrong() const override { return wrong_; }
    const char* name() const override { return "shm"; }
    int fd() const override { return -1; }
    // The socket of the handshake stays open beside the ring for that.
    bool tells_leaving() const override { return false; }

  private:
    // A bulk frame that is in the ring whole.
    struct Bulk {
        uint64_t seq;
        uint64_t end;  // number of the line behind its last piece
    };

    void point() { place_ = {tx_.place(), tx_.room()}; }
    // (while bulk frames are on their way, looks are also for what has been taken of them)
    void listen() { bell_ = {bulks_.empty() ? &rx_.word() : nullptr, rx_.stamp()}; }
    void put(size_t size, uint8_t tag, LineKind kind, uint64_t seq) {
        tx_.commit(size, tag, kind, seq);
        point();
    }
    size_t put_message(const Frame& frame);
    size_t put_bulk(const Frame& frame, size_t offset);
    void acknowledge(LinkEvents& events, uint64_t consumed);
    // A line has the low half of its message's number. False: a gap, or what no line may say.
    bool take(const LineView& line, LinkEvents& events) {
        const auto ahead = static_cast<int32_t>(line.seq - static_cast<uint32_t>(received_));
        if (line.kind != LineKind::data || ahead != 1) [[unlikely]]
            return take_other(line, ahead, events);
        return events.on_data(++received_, line.tag, line.data, line.length);
    }
    bool take_other(const LineView& line, int32_t ahead, LinkEvents& events);
    bool take_resume(const LineView& line, LinkEvents& events);
    bool begin_bulk(const LineView& line, LinkEvents& events);
    bool take_piece(const LineView& line, LinkEvents& events);

    std::unique_ptr<RingMapping> map_;
    RingRx rx_;
    RingTx tx_;
    const RingPieces pieces_;
    bool begun_ = false;     // the first acknowledgement is out
    uint64_t received_ = 0;  // number of the last message the socket has
    std::deque<Bulk> bulks_;
    // The bulk frame that is coming.
    wire::FrameHeader bulk_;
    uint8_t* body_ = nullptr;  // its next byte; null: discard
    uint64_t body_left_ = 0;
    const char* wrong_ = nullptr;
};

}  // namespace kernet
