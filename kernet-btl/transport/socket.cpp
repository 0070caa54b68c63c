#include "kernet-btl/transport/socket.hpp"

#include <algorithm>
#include <cstring>

#include "base/log.hpp"
#include "kernet-btl/transport/datapath.hpp"

namespace kernet {

Socket::Socket(DataPath& path, PeerShared& shared, Receiver& receiver)
    : filtered_(path.filtered(shared.rank)), path_(path), shared_(shared), receiver_(receiver) {
    change(SocketState::attached);
}

Socket::~Socket() {
    if (state_ != SocketState::unattached) unattach();
}

bool Socket::change(SocketState to) {
    if (!may_change(state_, to)) {
        ghost::log::error("kernet: socket to rank {}: {} -> {} is not allowed", peer(),
                          state_name(state_), state_name(to));
        return false;
    }
    ghost::log::trace("kernet: socket to rank {}: {} -> {}", peer(), state_name(state_),
                      state_name(to));
    state_ = to;
    path_.links_changed();
    return true;
}

// --- sending ---

uint8_t* Socket::reserve_frame(size_t size) {
    staged_ = path_.pool().get(size);
    return staged_->bytes();
}

void Socket::commit_frame(size_t size, uint8_t tag) {
    Frame* frame = staged_;
    staged_ = nullptr;
    frame->header.type = wire::FrameType::data;
    frame->header.tag = tag;
    frame->header.length = size;
    filtered_ ? send_filtered(frame) : enqueue(frame);
}

bool Socket::send_frame(Frame* frame, size_t size, uint8_t tag, void* token, bool more) {
    if (direct_ && waiting_.empty()) {
        if (uint8_t* room = direct_->reserve(size)) {
            std::memcpy(room, frame->bytes(), size);
            direct_->commit(size, tag, LineKind::data, next_seq_++);
            path_.pool().put(frame);
            return true;
        }
    }
    frame->header.type = wire::FrameType::data;
    frame->header.tag = tag;
    frame->header.length = size;
    if (filtered_) {
        frame->token = token;
        send_filtered(frame, more);
        return false;
    }
    enqueue(frame, more);
    if (backlog_ == 0) return true;
    frame->token = token;
    return false;
}

// What leaves at once leaves from where it lies, and is copied for a link that may come after this
// one while the peer takes it.
void Socket::send_pieces(uint8_t tag, const void* front, size_t front_size, const void* rest,
                         size_t size) {
    const size_t whole = front_size + size;
    if (!stream_ || filtered_ || unsent_ || whole + wire::max_pad > wire::max_message) {
        uint8_t* room = reserve(whole);
        std::memcpy(room, front, front_size);
        std::memcpy(room + front_size, rest, size);
        commit(whole, tag);
        return;
    }
    const size_t pad =
        (reinterpret_cast<uintptr_t>(rest) - wire::frame_header_size - front_size) & wire::max_pad;
    Frame* frame = path_.pool().get(pad + whole);
    frame->header.type = wire::FrameType::data;
    frame->header.tag = tag;
    frame->header.head = static_cast<uint8_t>(pad);
    frame->header.length = pad + whole;
    std::memset(frame->bytes(), 0, pad);
    std::memcpy(frame->bytes() + pad, front, front_size);
    frame->body = static_cast<const uint8_t*>(rest);
    frame->body_size = size;
    enqueue(frame);
    frame->keep_body();
}

void Socket::send_bulk(uint8_t tag, const void* head, size_t head_size, const void* body,
                       size_t size, void* token) {
    Frame* frame = path_.pool().get(head_size);
    frame->header.type = wire::FrameType::bulk;
    frame->header.tag = tag;
    frame->header.head = static_cast<uint8_t>(head_size);
    frame->header.length = head_size + size;
    frame->body = static_cast<const uint8_t*>(body);
    frame->body_size = size;
    frame->token = token;
    if (head_size > 0) std::memcpy(frame->bytes(), head, head_size);
    filtered_ ? send_filtered(frame) : enqueue(frame);
}

void Socket::own_body(const void* token) {
    for (const FrameQueue* queue : {&waiting_, &ringed_}) {
        for (Frame* frame = queue->front(); frame; frame = frame->next) {
            if (frame->token != token) continue;
            frame->own_body();
            frame->token = nullptr;
        }
    }
    if (filtered_) filtered_->own_body(token);
}

void Socket::enqueue(Frame* frame, bool more) {
    const bool first = !unsent_;
    append(frame);
    start_sending(first, more);
}

void Socket::append(Frame* frame) {
    frame->header.seq = next_seq_++;
    waiting_.push(frame);
    backlog_ += frame->wire_size();
    if (!unsent_) unsent_ = frame;
}

// first: nothing was on its way before.
void Socket::start_sending(bool first, bool more) {
    const bool now = first || corked_;
    corked_ = more && now;
    if (!linked()) {
        ask_for_link();
    } else if (now && !more && !flush() && lost_ && !polling_) {
        lose_link(nullptr);
    }
}

void Socket::ask_for_link() {
    if (state_ == SocketState::attached) path_.registry().ask(shared_, want_link);
}

// The frame is entirely in the link.
void Socket::left(Frame* frame) {
    backlog_ -= frame->wire_size();
    if (!frame->bulk() && frame->token)
        receiver_.released(*this, std::exchange(frame->token, nullptr));
}

// The frame is acknowledged.
void Socket::release(Frame* frame) {
    if (frame->token) receiver_.released(*this, frame->token);
    path_.pool().put(frame);
}

bool Socket::flush() {
    if (resuming_) return false;
    if (filtered_ ? flush_filtered() : flush_link()) return true;
    if (linked()) path_.registry().want_push();
    return false;
}

bool Socket::flush_link() {
    return ring_ ? flush_ring() : stream_ ? flush_stream() : waiting_.empty();
}

bool Socket::flush_ring() {
    while (unsent_) {
        Frame* frame = unsent_;
        if (!(frame->bulk() ? put_bulk_in_ring(frame) : put_in_ring(frame))) return false;
        waiting_.pop();
        unsent_ = waiting_.front();
        left(frame);
        if (frame->bulk()) {
            frame->last_line = ring_->tx.position();
            ringed_.push(frame);
        } else {
            release(frame);
        }
    }
    return true;
}

bool Socket::put_in_ring(Frame* frame) {
    const size_t size = frame->byte_count() - frame->header.head;
    uint8_t* room = ring_->tx.reserve(size);
    if (!room) return false;
    std::memcpy(room, frame->bytes() + frame->header.head, size);
    ring_->tx.commit(size, frame->header.tag, LineKind::data, frame->header.seq);
    return true;
}

bool Socket::put_bulk_in_ring(Frame* frame) {
    RingTx& tx = ring_->tx;
    if (!bulk_begun_) {
        const uint64_t size = frame->body_size;
        const size_t head = sizeof size + frame->header.head;
        uint8_t* room = tx.reserve(head);
        if (!room) return false;
        std::memcpy(room, &size, sizeof size);
        if (frame->header.head > 0) {
            std::memcpy(room + sizeof size, frame->bytes(), frame->header.head);
        }
        tx.commit(head, frame->header.tag, LineKind::bulk_head, frame->header.seq);
        bulk_begun_ = true;
        bulk_offset_ = 0;
    }
    // Pieces small enough that the reader copies one while the next is written, large enough that
    // lines do not count (facts: a quarter, between 2 and 64 KB).
    const size_t piece = std::clamp<size_t>((frame->body_size / 4 + 63) & ~size_t{63},
                                            path_.piece_min(), path_.piece_max());
    while (bulk_offset_ < frame->body_size) {
        const size_t size = std::min(piece, frame->body_size - bulk_offset_);
        uint8_t* room = tx.reserve(size);
        if (!room) return false;
        std::memcpy(room, frame->body + bulk_offset_, size);
        tx.commit(size, frame->header.tag, LineKind::bulk_piece, frame->header.seq);
        bulk_offset_ += size;
    }
    bulk_begun_ = false;
    bulk_offset_ = 0;
    return true;
}

void Socket::reap_bulk(uint64_t consumed) {
    while (!ringed_.empty() && ringed_.front()->last_line <= consumed) release(ringed_.pop());
}

bool Socket::flush_stream() {
    while (unsent_) {
        // A frame says what had come when it began to be written, not what came since.
        bool says = offset_ == 0;
        const ssize_t wrote = stream_->write(unsent_, offset_, received_);
        if (wrote < 0) lost_ = true;
        if (wrote <= 0) return false;
        size_t rest = static_cast<size_t>(wrote);
        while (rest > 0) {
            const size_t open = unsent_->wire_size() - offset_;
            if (rest < open) {
                offset_ += rest;
                break;
            }
            rest -= open;
            says |= rest > 0;
            offset_ = 0;
            Frame* done = unsent_;
            unsent_ = done->next;
            left(done);
        }
        if (!says) continue;
        told_ = received_;
        bytes_since_told_ = 0;
    }
    return true;
}

// --- links ---

void Socket::adopt(LinkHandoff& offer) {
    if (state_ != SocketState::attached || offer.generation <= generation_) return;
    if (offer.peer_last_seen >= next_seq_) {
        ghost::log::error("kernet: rank {} has seen frame {} of {} sent: link refused", peer(),
                          offer.peer_last_seen, next_seq_ - 1);
        return;
    }
    drop_link(Leave::lost);
    generation_ = offer.generation;
    peer_said_ = PeerSaid::nothing;
    lost_ = false;
    idle_polls_ = 0;
    told_ = 0;
    drop_acknowledged(offer.peer_last_seen);
    unsent_ = waiting_.front();
    // The number in the handshake was read while the peer's data side may still have been
    // receiving by the old link. Frames that were never in a link cannot have arrived.
    resuming_ = unsent_ && unsent_->header.seq <= exposed_;
    if (offer.ring) {
        ring_ = std::make_unique<Ring>(std::move(offer.ring));
        direct_ = filtered_ ? nullptr : &ring_->tx;
    } else {
        stream_ = std::move(offer.stream);
    }
    ghost::log::debug("kernet: rank {}: link {} number {}, resuming after frame {}", peer(),
                      ring_ ? "shm" : stream_->name(), generation_, offer.peer_last_seen);
    backlog_ = filtered_ ? filtered_->bytes() : 0;
    for (Frame* frame = unsent_; frame; frame = frame->next) backlog_ += frame->wire_size();
    if (filtered_ && !unsent_) encode_some();
    path_.links_changed();
    say_where_we_are();
    if (!flush() && lost_) lose_link(nullptr);
}

// The first frame by every link: the last number received, exact because the old link is gone.
void Socket::say_where_we_are() {
    if (ring_) {
        std::memcpy(ring_->tx.reserve(sizeof received_), &received_, sizeof received_);
        ring_->tx.commit(sizeof received_, 0, LineKind::resume, 0);
    } else {
        lost_ = !stream_->write_control(wire::FrameType::ack, received_);
        told_ = received_;
    }
}

void Socket::drop_link(Leave why) {
    if (why == Leave::lost && stream_ && stream_->lossy()) {
        path_.registry().ask(shared_, link_lossy);
    }
    if (linked()) exposed_ = next_seq_ - 1;
    if (ring_) {
        keep_ring_tail();
        direct_ = nullptr;
        ring_.reset();
    }
    if (stream_) {
        // A ring's peer is told by the control side, through the socket beside the ring; so is
        // that of a link of packets.
        const auto said = why == Leave::suspended ? wire::FrameType::suspend : wire::FrameType::bye;
        if (why != Leave::lost && offset_ == 0 && stream_->tells_leaving())
            stream_->write_control(said, received_);
        stream_.reset();
    }
    unsent_ = waiting_.front();
    offset_ = 0;
    bulk_begun_ = false;
    bulk_offset_ = 0;
    bulk_in_.done = 0;  // the body is sent again from its start
    path_.links_changed();
}

void Socket::lose_link(const char* wrong) {
    if (wrong) ghost::log::error("kernet: link with rank {} dropped: {}", peer(), wrong);
    const bool mute = stream_ && stream_->mute();
    drop_link(Leave::lost);
    lost_ = false;
    shared_.lost_generation.store(generation_, std::memory_order_release);
    const uint32_t request = peer_said_ == PeerSaid::suspends ? peer_suspended
                             : peer_said_ == PeerSaid::left   ? peer_left
                             : mute                           ? link_lost | link_mute
                                                              : link_lost;
    path_.registry().ask(shared_, request);
}

void Socket::leave_if_dead() {
    if (stream_->node_is_dead()) lose_link("the peer's node is silent");
}

// Copies what the peer has not consumed out of the ring, in front of what waits.
// The peer may be reading meanwhile, so the count of what it has consumed is read once: a bulk
// frame it finished between two readings would be in the way of all that come after it. What it
// takes after that is sent again and dropped by its number.
void Socket::keep_ring_tail() {
    const uint64_t consumed = ring_->tx.consumed();
    reap_bulk(consumed);
    FrameQueue tail;
    const RingTx& tx = ring_->tx;
    LineView line;
    for (uint64_t number = consumed; number < tx.position(); number = tx.after(number, line)) {
        if (!tx.view(number, line)) {
            ghost::log::error("kernet: ring to rank {} spoilt: its tail is lost", peer());
            break;
        }
        const uint64_t seq =
            next_seq_ - static_cast<uint32_t>(static_cast<uint32_t>(next_seq_) - line.seq);
        if (line.kind == LineKind::data) {
            Frame* frame = path_.pool().get(line.length);
            frame->header.type = wire::FrameType::data;
            frame->header.tag = line.tag;
            frame->header.length = line.length;
            frame->header.seq = seq;
            std::memcpy(frame->bytes(), line.data, line.length);
            tail.push(frame);
        } else if (line.kind != LineKind::resume && !ringed_.empty() &&
                   ringed_.front()->header.seq == seq) {
            tail.push(ringed_.pop());
        }
    }
    waiting_.prepend(tail);
}

void Socket::drop_acknowledged(uint64_t ack) {
    while (!waiting_.empty() && waiting_.front()->header.seq <= ack) {
        Frame* frame = waiting_.front();
        if (frame == unsent_) {
            if (offset_ > 0) return;  // repeated in vain, but its rest must go out
            unsent_ = frame->next;
            left(frame);
        }
        waiting_.pop();
        release(frame);
    }
    if (filtered_ && !unsent_) encode_some();
}

void Socket::suspend() {
    if (state_ != SocketState::attached || !change(SocketState::suspended)) return;
    drop_link(Leave::suspended);
    if (filtered_) filtered_->suspend();
    ghost::log::debug("kernet: socket to rank {} suspended: received {}, sent {}, kept from {}",
                      peer(), received_, next_seq_ - 1,
                      waiting_.empty() ? next_seq_ : waiting_.front()->header.seq);
}

void Socket::wakeup() {
    if (state_ != SocketState::suspended) return;
    // Before anything is sent: this may be one of several that go on from here.
    if (filtered_) filtered_->wakeup();
    change(SocketState::attached);
}

void Socket::unattach() {
    drop_link(Leave::unattached);
    change(SocketState::unattached);
    while (!waiting_.empty()) release(waiting_.pop());
    if (filtered_) {
        for (void* token : filtered_->drop()) receiver_.released(*this, token);
        filtered_->suspend();
    }
    unsent_ = nullptr;
    backlog_ = 0;
}

bool Socket::busy() {
    if (ring_) return !waiting_.empty() || ring_->tx.consumed() != ring_->tx.position();
    return !waiting_.empty();
}

}  // namespace kernet
