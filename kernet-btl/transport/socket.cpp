// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/transport/socket.hpp"

#include <algorithm>
#include <cstring>

#include "base/state_machine.hpp"
#include "kernet-btl/transport/datapath.hpp"

namespace kernet {

Socket::Socket(DataPath& path, PeerShared& shared, Receiver& receiver)
    : filtered_(path.filtered(shared.rank)), path_(path), shared_(shared), receiver_(receiver) {
    (void)change(SocketState::attached);
}

Socket::~Socket() {
    if (state_ != SocketState::unattached) unattach();
}

bool Socket::change(SocketState to) {
    const auto who = [this] { return fmt::format("kernet: socket to rank {}", peer()); };
    if (!socket_states.change(state_, to, ghost::log::Level::trace, who)) return false;
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
    if (uint8_t* room = room_in_link(size)) {
        std::memcpy(room, frame->bytes(), size);
        link_->commit(size, tag, next_seq_++);
        path_.pool().put(frame);
        return true;
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
    const bool leaves = link_ && !link_->traits().in_place && !filtered_ && waiting_.empty();
    if (!leaves || whole + wire::max_pad > wire::max_message) {
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
    for (const FrameQueue* queue : {&sent_, &waiting_}) {
        for (Frame* frame = queue->front(); frame; frame = frame->next) {
            if (frame->token != token) continue;
            frame->own_body();
            frame->token = nullptr;
        }
    }
    if (filtered_) filtered_->own_body(token);
}

void Socket::enqueue(Frame* frame, bool more) {
    const bool first = waiting_.empty();
    append(frame);
    start_sending(first, more);
}

void Socket::append(Frame* frame) {
    frame->header.seq = next_seq_++;
    waiting_.push(frame);
    backlog_ += frame->wire_size();
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
    while (link_ && !waiting_.empty()) {
        // A frame says what had come when it began to be written, not what came since.
        bool says = offset_ == 0;
        const ssize_t wrote = link_->write(waiting_.front(), offset_, received_);
        if (wrote < 0) lost_ = true;
        if (wrote <= 0) return false;
        written(static_cast<size_t>(wrote), says);
        if (!says) continue;
        told_ = received_;
        bytes_since_told_ = 0;
    }
    return waiting_.empty();
}

// says: becomes true if another frame began among these bytes.
void Socket::written(size_t bytes, bool& says) {
    while (bytes > 0) {
        Frame* frame = waiting_.front();
        const size_t open = frame->wire_size() - offset_;
        if (bytes < open) {
            offset_ += bytes;
            return;
        }
        bytes -= open;
        says |= bytes > 0;
        offset_ = 0;
        waiting_.pop();
        left(frame);
        if (link_->traits().in_place && !frame->bulk()) {
            release(frame);  // the link keeps it
        } else {
            sent_.push(frame);
        }
    }
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
    const Frame* first = waiting_.front();
    // The number in the handshake was read while the peer's data side may still have been
    // receiving by the old link. Frames that were never in a link cannot have arrived.
    resuming_ = first && first->header.seq <= exposed_;
    link_ = std::move(offer.link);
    in_place_ = link_->traits().in_place && !filtered_;
    if (in_place_) place_ = &link_->place();
    ghost::log::debug("kernet: rank {}: link {} number {}, resuming after frame {}", peer(),
                      link_->name(), generation_, offer.peer_last_seen);
    backlog_ = filtered_ ? filtered_->bytes() : 0;
    for (; first; first = first->next) backlog_ += first->wire_size();
    if (filtered_ && waiting_.empty()) encode_some();
    path_.links_changed();
    receiver_.linked(*this);
    // The first frame by every link: the last number received, exact because the old link is gone.
    lost_ = !link_->write_control(wire::FrameType::ack, received_);
    told_ = received_;
    if (!flush() && lost_) lose_link(nullptr);
}

void Socket::drop_link(Leave why) {
    FrameQueue tail;
    if (link_) {
        if (why == Leave::lost && link_->lossy()) path_.registry().ask(shared_, link_lossy);
        exposed_ = next_seq_ - 1;
        link_->take_back(*this, path_.pool(), tail);
        const auto said = why == Leave::suspended ? wire::FrameType::suspend : wire::FrameType::bye;
        // Else the peer is told by the control side, through the connection beside the link.
        if (why != Leave::lost && offset_ == 0 && link_->tells_leaving())
            link_->write_control(said, received_);
        place_ = &nowhere;
        in_place_ = false;
        link_.reset();
    }
    keep(tail);
    offset_ = 0;
    path_.links_changed();
}

// What the link gave back and what we kept, by their numbers, in front of what waits.
void Socket::keep(FrameQueue& tail) {
    FrameQueue all;
    while (!tail.empty() || !sent_.empty()) {
        const bool ours = tail.empty() ||
                          (!sent_.empty() && sent_.front()->header.seq < tail.front()->header.seq);
        all.push(ours ? sent_.pop() : tail.pop());
    }
    waiting_.prepend(all);
}

void Socket::lose_link(const char* wrong) {
    if (wrong) ghost::log::error("kernet: link with rank {} dropped: {}", peer(), wrong);
    const bool mute = link_ && link_->mute();
    drop_link(Leave::lost);
    lost_ = false;
    shared_.lost_generation.store(generation_, std::memory_order_release);
    const uint32_t request = peer_said_ == PeerSaid::suspends ? peer_suspended
                             : peer_said_ == PeerSaid::left   ? peer_left
                             : mute                           ? link_lost | link_mute
                                                              : link_lost;
    path_.registry().ask(shared_, request);
}

// What was in a link may have arrived, although nobody has acknowledged it.
bool Socket::undeliverable() const {
    const bool kept = filtered_ && filtered_->bytes() > 0;
    return gone() && (kept || (!waiting_.empty() && next_seq_ - 1 > exposed_));
}

void Socket::leave_if_dead() {
    if (link_->node_is_dead()) lose_link("the peer's node is silent");
}

void Socket::drop_acknowledged(uint64_t ack) {
    while (!sent_.empty() && sent_.front()->header.seq <= ack) release(sent_.pop());
    // What has arrived by the last link, and waits to be sent again.
    while (!waiting_.empty() && waiting_.front()->header.seq <= ack) {
        if (offset_ > 0) return;  // repeated in vain, but its rest must go out
        Frame* frame = waiting_.pop();
        left(frame);
        release(frame);
    }
    if (filtered_ && waiting_.empty()) encode_some();
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
    (void)change(SocketState::attached);
}

void Socket::unattach() {
    drop_link(Leave::unattached);
    (void)change(SocketState::unattached);
    while (!waiting_.empty()) release(waiting_.pop());
    if (filtered_) {
        for (void* token : filtered_->drop()) receiver_.released(*this, token);
        filtered_->suspend();
    }
    backlog_ = 0;
}

bool Socket::busy() {
    return !waiting_.empty() || !sent_.empty() || (link_ && link_->keeps());
}

}  // namespace kernet
