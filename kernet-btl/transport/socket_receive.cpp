// SPDX-License-Identifier: BSD-3-Clause
// The receiving half of a KerNet socket.
#include <cstring>

#include "base/log.hpp"
#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/transport/socket.hpp"

namespace kernet {

namespace {

constexpr uint64_t acknowledge_bytes = 192 * 1024;
constexpr uint32_t acknowledge_polls = 64;

}  // namespace

bool Socket::push() {
    if (!linked()) return false;
    // A link's first frame, which alone may be taken while the upper layer is elsewhere.
    if (resuming_ && !link_->take_first_ack(*this)) lost_ = true;
    if (link_->tended() && !link_->tend(true)) lost_ = true;
    if (!lost_ && flush()) return false;
    if (!lost_) return true;
    lose_link(nullptr);
    return false;
}

uint8_t* Socket::begin_bulk(uint64_t seq, uint8_t tag, const uint8_t* head, size_t head_size,
                            uint64_t size) {
    BulkIn& in = bulk_in_;
    if (in.seq == seq && in.size == size) return in.body;  // again after a lost link
    in.seq = seq;
    in.tag = tag;
    in.head_size = static_cast<uint8_t>(head_size);
    std::memcpy(in.head, head, head_size);
    in.size = size;
    in.body = receiver_.place(*this, tag, in.head, head_size, static_cast<size_t>(size));
    return in.body;
}

void Socket::end_bulk() {
    const BulkIn in = bulk_in_;
    bulk_in_ = BulkIn{};
    arrived(in.seq);
    if (in.body) {
        receiver_.placed(*this, in.tag, in.head, in.head_size, in.body,
                         static_cast<size_t>(in.size));
    }
}

int Socket::poll() {
    polling_ = true;
    const Link::Poll result = link_->poll(*this);
    polling_ = false;
    if (result == Link::Poll::broken || lost_) {
        lose_link(lost_ ? nullptr : link_->wrong());
        return 1;
    }
    if (result == Link::Poll::idle) return 0;
    idle_polls_ = 0;
    return 1;
}

int Socket::attend() {
    if (!waiting_.empty() && !flush() && lost_) {
        lose_link(nullptr);
        return 1;
    }
    acknowledge_idle();
    if (link_->tended() && !link_->tend(false)) {
        lose_link(link_->wrong());
        return 1;
    }
    idle_polls_++;
    return 0;
}

void Socket::acknowledge_idle() {
    if (received_ == told_ || offset_ > 0) return;
    if (bytes_since_told_ < acknowledge_bytes && idle_polls_ < acknowledge_polls) return;
    if (!link_->write_control(wire::FrameType::ack, received_)) return;
    told_ = received_;
    bytes_since_told_ = 0;
}

wire::FrameLimits Socket::limits() const {
    return {0, received_, next_seq_ - 1};
}

void Socket::on_ack(uint64_t ack) {
    drop_acknowledged(ack);
    resuming_ = false;  // the first frame of a link says where the peer is
}

bool Socket::on_data(uint64_t seq, uint8_t tag, uint8_t* bytes, size_t size) {
    if (seq <= received_) return true;  // repeated
    bytes_since_told_ += size;
    // What is refused leaves a gap, in which the frames behind it would end.
    if (filtered_) [[unlikely]]
        return take_filtered(seq, tag, bytes, size);
    arrived(seq);
    heard_ = tag;
    receiver_.deliver(*this, tag, bytes, size);
    return true;
}

uint8_t* Socket::on_bulk(const wire::FrameHeader& header, const uint8_t* head) {
    if (header.seq <= received_) return nullptr;
    if (filtered_) {  // nobody with the same filters sends one
        lost_ = true;
        return nullptr;
    }
    return begin_bulk(header.seq, header.tag, head, header.head, header.length - header.head);
}

void Socket::on_bulk_done(const wire::FrameHeader& header) {
    if (header.seq <= received_ || filtered_) return;
    bytes_since_told_ += header.length;
    end_bulk();
}

void Socket::on_control(wire::FrameType type) {
    peer_said_ = type == wire::FrameType::bye ? PeerSaid::left : PeerSaid::suspends;
}

}  // namespace kernet
