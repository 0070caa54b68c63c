// The receiving half of a KerNet socket.
#include <cstring>

#include "base/log.hpp"
#include "kernet-btl/transport/datapath.hpp"
#include "kernet-btl/transport/socket.hpp"

namespace kernet {

namespace {

constexpr uint64_t acknowledge_bytes = 192 * 1024;
constexpr uint32_t acknowledge_polls = 64;
constexpr int lines_per_poll = 32;  // so that other peers get their turn

}  // namespace

// --- link shm ---

int Socket::poll_ring() {
    int events = 0;
    while (events < lines_per_poll && ring_->rx.ready()) {
        LineView line;
        if (!ring_->rx.view(line) || !take_line(line)) {
            lose_link("malformed line in the ring");
            return events + 1;
        }
        ring_->rx.advance(line);
        events++;
    }
    if (unsent_) flush();
    if (!ringed_.empty()) reap_bulk(ring_->tx.consumed());
    return events;
}

// Extends the low half of a number around the next expected one. False: a gap.
bool Socket::accept_seq(uint32_t low, uint64_t& seq) const {
    const auto ahead = static_cast<int32_t>(low - static_cast<uint32_t>(received_));
    seq = received_ + static_cast<uint64_t>(static_cast<int64_t>(ahead));
    return ahead <= 1;
}

bool Socket::take_line(const LineView& line) {
    if (line.kind == LineKind::resume) return take_resume(line);
    uint64_t seq;
    if (!accept_seq(line.seq, seq)) return false;
    if (seq <= received_) return true;  // repeated
    if (filtered_) [[unlikely]]
        return line.kind == LineKind::data && take_filtered(seq, line.tag, line.data, line.length);
    if (line.kind == LineKind::data) {
        arrived(seq);
        receiver_.deliver(*this, line.tag, line.data, line.length);
        return true;
    }
    if (line.kind == LineKind::bulk_head) return take_bulk_head(line);
    return line.kind == LineKind::bulk_piece && take_bulk_piece(line);
}

bool Socket::take_resume(const LineView& line) {
    uint64_t seen;
    if (line.length != sizeof seen) return false;
    std::memcpy(&seen, line.data, sizeof seen);
    if (seen >= next_seq_) return false;
    if (resuming_) drop_acknowledged(seen);
    resuming_ = false;
    return true;
}

bool Socket::take_bulk_head(const LineView& line) {
    uint64_t size;
    if (line.length < sizeof size || line.length > sizeof size + wire::max_bulk_head) return false;
    std::memcpy(&size, line.data, sizeof size);
    if (size == 0 || size > wire::max_bulk_body) return false;
    begin_bulk(received_ + 1, line.tag, line.data + sizeof size, line.length - sizeof size, size);
    return true;
}

bool Socket::take_bulk_piece(const LineView& line) {
    BulkIn& in = bulk_in_;
    if (in.seq != received_ + 1 || line.length > in.size - in.done) return false;
    if (in.body) std::memcpy(in.body + in.done, line.data, line.length);
    in.done += line.length;
    if (in.done == in.size) end_bulk();
    return true;
}

// A link's first frame, which alone may be taken while the upper layer is elsewhere.
void Socket::take_resume_only() {
    if (stream_) {
        lost_ = !stream_->take_first_ack(*this);
        return;
    }
    LineView line;
    if (!ring_->rx.ready() || !ring_->rx.view(line) || line.kind != LineKind::resume) return;
    lost_ = !take_resume(line);
    ring_->rx.advance(line);
}

bool Socket::push() {
    if (!linked()) return false;
    if (resuming_) take_resume_only();
    if (stream_ && stream_->tended() && !stream_->tend(true)) lost_ = true;
    if (!lost_ && flush()) return false;
    if (!lost_) return true;
    lose_link(nullptr);
    return false;
}

// --- bulk messages, either link ---

uint8_t* Socket::begin_bulk(uint64_t seq, uint8_t tag, const uint8_t* head, size_t head_size,
                            uint64_t size) {
    BulkIn& in = bulk_in_;
    in.done = 0;
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

// --- stream links ---

int Socket::poll_stream() {
    polling_ = true;
    const StreamLink::Poll result = stream_->poll(*this);
    polling_ = false;
    if (result == StreamLink::Poll::broken || lost_) {
        lose_link(lost_ ? nullptr : stream_->wrong());
        return 1;
    }
    if (result == StreamLink::Poll::idle) return 0;
    idle_polls_ = 0;
    return 1;
}

int Socket::attend_stream() {
    if (unsent_ && !flush() && lost_) {
        lose_link(nullptr);
        return 1;
    }
    acknowledge_idle();
    if (stream_->tended() && !stream_->tend(false)) {
        lose_link(stream_->wrong());
        return 1;
    }
    idle_polls_++;
    return 0;
}

void Socket::acknowledge_idle() {
    if (received_ == told_ || offset_ > 0) return;
    if (bytes_since_told_ < acknowledge_bytes && idle_polls_ < acknowledge_polls) return;
    if (!stream_->write_control(wire::FrameType::ack, received_)) return;
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

void Socket::on_data(const wire::FrameHeader& header, uint8_t* bytes) {
    if (header.seq <= received_) return;  // repeated
    bytes_since_told_ += header.length;
    const size_t size = static_cast<size_t>(header.length) - header.head;
    bytes += header.head;
    if (filtered_) [[unlikely]] {
        // What was refused leaves a gap, in which the frames behind it in this link end.
        if (!take_filtered(header.seq, header.tag, bytes, size)) lost_ = true;
        return;
    }
    arrived(header.seq);
    receiver_.deliver(*this, header.tag, bytes, size);
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
