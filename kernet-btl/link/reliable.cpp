// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/reliable.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/clock.hpp"
#include "base/log.hpp"

namespace kernet {

namespace {

constexpr double first_window = 64;    // segments; a cluster's network takes one burst
constexpr double least_window = 16;    // what a loss can bring it down to
constexpr int32_t reordering = 3;      // RFC 9002, 6.1.1
constexpr uint32_t ack_segments = 32;  // of a burst of 44, most
constexpr uint32_t ack_polls = 16;     // in vain, then the clock is looked at
constexpr int64_t ack_delay_us = 20;   // after what came last: nothing is about to be sent
constexpr int64_t first_patience_us = 20'000;
constexpr int64_t least_patience_us = 5'000;  // a process may lose its core for so long
constexpr int64_t most_patience_us = 500'000;
constexpr int probes_before_death = 8;
constexpr int64_t first_word_us = 3'000'000;  // of a peer whose packets may never reach us
constexpr int64_t sign_of_life_us = 1'000'000;
constexpr int looked_at_once = 64;  // packets

}  // namespace

PacketLink::PacketLink(std::unique_ptr<PacketDriver> driver, const PacketKeys& keys,
                       int64_t dead_after_us, size_t slot_memory)
    : ByteLink(keys.out.epoch, keys.in.epoch),
      driver_(std::move(driver)),
      keys_(keys),
      dead_after_(dead_after_us),
      stride_(std::min<size_t>(driver_->max_packet(), wire::packet_header_size + UINT16_MAX)),
      slots_(std::bit_floor(static_cast<uint32_t>(
          std::clamp<size_t>(slot_memory / stride_, 64, wire::max_packet_window)))),
      mask_(slots_ - 1),
      out_(new uint8_t[slots_ * stride_]),
      sent_(slots_),
      window_(first_window),
      in_(new uint8_t[slots_ * stride_]),
      waiting_(slots_, 0),
      ack_packet_(wire::packet_header_size + slots_ / 8) {
    own_window_ =
        static_cast<uint32_t>(std::clamp<size_t>(driver_->receive_room() / 2 / stride_, 8, slots_));
    said_window_ = own_window_;
    peer_window_ = std::min<uint32_t>(slots_, static_cast<uint32_t>(least_window));
    ready_.reserve(looked_at_once);
}

// What has come is said before we go: the other side may be waiting for nothing else.
PacketLink::~PacketLink() {
    if (!broken_ && unacknowledged_ > 0) acknowledge();
    ghost::log::debug(
        "kernet: link {}: {} packets sent, {} of them again ({} after a silence), {} refused, {} "
        "repeated, {} early",
        driver_->name(), counts_.sent, counts_.again, counts_.probes, counts_.refused,
        counts_.repeated, counts_.ahead);
}

// --- sending ---

// Segments that may leave now for the first time.
uint64_t PacketLink::room() const {
    const uint64_t limit = acked_ + std::min(slots_, peer_window_);
    if (filled_ >= limit) return 0;
    const auto open = static_cast<uint64_t>(window_);
    const uint64_t used = on_the_way() + lost_ + (filled_ - sent_to_);
    return used >= open ? 0 : std::min(limit - filled_, open - used);
}

// How long to wait for an answer before asking again.
int64_t PacketLink::patience() const {
    const int64_t once = round_trip_ == 0
                             ? first_patience_us
                             : std::max(least_patience_us, round_trip_ + 4 * deviation_);
    return std::min(once << std::min(probes_, 10), most_patience_us);
}

// One more segment, of what is left of the pieces.
void PacketLink::fill(const iovec*& piece, const iovec* end, size_t& at) {
    const size_t most = stride_ - wire::packet_header_size;
    uint8_t* to = packet_of(++filled_) + wire::packet_header_size;
    size_t have = 0;
    while (have < most && piece != end) {
        const size_t part = std::min(most - have, piece->iov_len - at);
        if (part > 0) std::memcpy(to + have, static_cast<uint8_t*>(piece->iov_base) + at, part);
        have += part;
        at += part;
        if (at == piece->iov_len) {
            piece++;
            at = 0;
        }
    }
    sent_of(filled_) = Sent{static_cast<uint32_t>(have), 0, 0, false, false};
}

ssize_t PacketLink::send_bytes(const iovec* pieces, int count) {
    if (filled_ != sent_to_ || lost_ > 0) transmit();
    if (broken_) return -1;
    if (filled_ != sent_to_) return 0;
    size_t taken = 0, at = 0;
    const iovec* end = pieces + count;
    for (uint64_t left = room(); left > 0 && pieces != end; left--) {
        fill(pieces, end, at);
        taken += sent_of(filled_).size;
        if (filled_ - sent_to_ == burst) transmit();
    }
    if (filled_ != sent_to_) transmit();
    return broken_ ? -1 : static_cast<ssize_t>(taken);
}

bool PacketLink::send_whole(const void* bytes, size_t size) {
    if (broken_ || room() == 0 || size > stride_ - wire::packet_header_size) return false;
    const iovec whole{const_cast<void*>(bytes), size};
    return send_bytes(&whole, 1) == static_cast<ssize_t>(size);
}

// Seals and sends; how many the driver took.
int PacketLink::emit(const uint64_t* numbers, int count, uint8_t flags) {
    PacketView views[burst];
    now_ = ghost::monotonic_us();
    for (int i = 0; i < count; i++) {
        Sent& sent = sent_of(numbers[i]);
        wire::PacketHeader header;
        header.flags = flags;
        header.length = static_cast<uint16_t>(sent.size);
        header.window = said_window_ = own_window();
        header.number = numbers[i];
        header.ack = received_;
        header.order = sent.order = ++order_;
        header.seen = seen_;
        sent.at = now_;
        uint8_t* packet = packet_of(numbers[i]);
        wire::seal_packet(packet, header, keys_.out);
        views[i] = {packet, wire::packet_header_size + sent.size};
    }
    const int taken = driver_->send(views, count);
    if (taken < 0) broken_ = true;
    if (taken <= 0) return 0;
    counts_.sent += static_cast<uint64_t>(taken);
    unacknowledged_ = idle_ = 0;
    said_at_ = now_;
    if (probe_at_ == 0) {
        heard_at_ = now_;  // silence before there was anything to answer is none
        probe_at_ = now_ + patience();
    }
    return taken;
}

void PacketLink::transmit() {
    if (lost_ > 0 && !transmit_lost()) return;
    while (sent_to_ < filled_ && !broken_) {
        uint64_t numbers[burst];
        const int count = static_cast<int>(std::min<uint64_t>(burst, filled_ - sent_to_));
        for (int i = 0; i < count; i++) numbers[i] = sent_to_ + 1 + static_cast<uint64_t>(i);
        const int taken = emit(numbers, count, 0);
        sent_to_ += static_cast<uint64_t>(taken);
        if (taken < count) return;
    }
}

// True if nothing lost is left that could be sent again now.
bool PacketLink::transmit_lost() {
    for (uint64_t number = acked_ + 1; number <= sent_to_ && lost_ > 0 && !broken_;) {
        uint64_t numbers[burst];
        int count = 0;
        for (; number <= sent_to_ && count < burst; number++) {
            const bool open = on_the_way() + static_cast<uint64_t>(count) < window_;
            if (open && sent_of(number).lost) numbers[count++] = number;
        }
        if (count == 0) break;
        const int taken = emit(numbers, count, 0);
        for (int i = 0; i < taken; i++) sent_of(numbers[i]).lost = false;
        lost_ -= static_cast<uint64_t>(taken);
        counts_.again += static_cast<uint64_t>(taken);
        if (taken < count) return false;
    }
    return !broken_;
}

// --- what is due by itself ---

bool PacketLink::tend(bool absent) {
    if (broken_) return false;
    idle_++;
    calls_++;
    if (absent) look_for_absent(ghost::monotonic_us());
    const bool wider = said_window_ < own_window_ / 2 && own_window() > own_window_ / 2;
    if (wider || acknowledgement_due()) acknowledge();
    if (lost_ > 0 || filled_ != sent_to_) transmit();
    if (probe_at_ != 0 && (absent || calls_ % 16 == 0)) {
        return mind_silence(ghost::monotonic_us()) && !broken_;
    }
    return !broken_;
}

// A look may take 20 ns or 200, so the time counts: between the frames of one message pass some
// microseconds, and an acknowledgement in between would make the answer later.
bool PacketLink::acknowledgement_due() const {
    return unacknowledged_ > 0 && idle_ > 0 && idle_ % ack_polls == 0 &&
           ghost::monotonic_us() - now_ >= ack_delay_us;
}

// What came is acknowledged, so that the other side can go on; its bytes wait here, as many as
// the window allows.
void PacketLink::look_for_absent(int64_t now) {
    while (pull() > 0) continue;
    if (unacknowledged_ > 0 || now - said_at_ > sign_of_life_us) acknowledge();
}

bool PacketLink::mind_silence(int64_t now) {
    if (now < probe_at_) return true;
    const int64_t limit = heard_ ? dead_after_ : std::min(dead_after_, first_word_us);
    if (now - heard_at_ > limit && probes_ >= probes_before_death) {
        wrong_ = "the peer is silent";
        broken_ = given_up_ = true;
        return false;
    }
    if (sent_to_ == acked_) {
        probe_at_ = filled_ == acked_ ? 0 : now + patience();
        return true;
    }
    const uint64_t oldest = acked_ + 1;
    if (emit(&oldest, 1, wire::packet_answer) == 1) {
        if (sent_of(oldest).lost) lost_--;
        sent_of(oldest).lost = false;
        counts_.again++;
        counts_.probes++;
    }
    probes_++;
    probe_at_ = now + patience();
    return true;
}

// --- receiving ---

ssize_t PacketLink::receive_bytes(const iovec* pieces, int count) {
    if (ready_at_ == ready_.size() && pull() < 0) return -1;
    size_t taken = 0, at = 0;
    const iovec* end = pieces + count;
    while (pieces != end && ready_at_ != ready_.size()) {
        Piece& piece = ready_[ready_at_];
        const size_t part = std::min(piece.size, pieces->iov_len - at);
        if (part > 0) std::memcpy(static_cast<uint8_t*>(pieces->iov_base) + at, piece.data, part);
        taken += part;
        piece.data += part;
        piece.size -= part;
        at += part;
        if (piece.size == 0) ready_at_++;
        if (at == pieces->iov_len) {
            pieces++;
            at = 0;
        }
    }
    return static_cast<ssize_t>(taken);
}

ssize_t PacketLink::peek_bytes(void* bytes, size_t size) {
    if (ready_at_ == ready_.size() && pull() < 0) return -1;
    size_t taken = 0;
    for (size_t i = ready_at_; i < ready_.size() && taken < size; i++) {
        const size_t part = std::min(ready_[i].size, size - taken);
        std::memcpy(static_cast<uint8_t*>(bytes) + taken, ready_[i].data, part);
        taken += part;
    }
    return static_cast<ssize_t>(taken);
}

// Segments after received_ there is room for.
uint32_t PacketLink::own_window() const {
    const auto held = static_cast<uint32_t>(ready_.size() - ready_at_);
    return own_window_ - std::min(own_window_, held);
}

// What is not taken yet leaves the driver's buffers for the slots of its segments.
void PacketLink::stash() {
    ready_.erase(ready_.begin(), ready_.begin() + static_cast<ptrdiff_t>(ready_at_));
    ready_at_ = 0;
    base_ = received_ - ready_.size();
    for (size_t i = 0; i < ready_.size(); i++) {
        uint8_t* slot = &in_[((base_ + 1 + i) & mask_) * stride_];
        if (ready_[i].data >= slot && ready_[i].data < slot + stride_) continue;
        std::memcpy(slot, ready_[i].data, ready_[i].size);
        ready_[i].data = slot;
    }
}

// Looks at the driver once. Packets, or -1.
int PacketLink::pull() {
    if (ready_at_ == ready_.size()) {
        ready_.clear();
        ready_at_ = 0;
        base_ = received_;
    } else {
        stash();
    }
    PacketView packets[looked_at_once];
    const int count = driver_->receive(packets, looked_at_once);
    if (count < 0) broken_ = true;
    if (count <= 0) return count;
    now_ = ghost::monotonic_us();
    for (int i = 0; i < count; i++) take(packets[i]);
    if (answer_now_ || unacknowledged_ >= ack_segments) acknowledge();
    return count;
}

void PacketLink::take(const PacketView& packet) {
    wire::PacketHeader header;
    const wire::PacketLimits limits{received_, sent_to_, order_, slots_,
                                    stride_ - wire::packet_header_size};
    if (wire::check_packet(packet.data, packet.size, keys_.in, limits, header)) {
        counts_.refused++;
        return;
    }
    heard_at_ = now_;
    heard_ = true;
    if (static_cast<int32_t>(header.order - seen_) > 0) seen_ = header.order;
    const uint8_t* payload = packet.data + wire::packet_header_size;
    take_ack(header, payload);
    if (header.flags & wire::packet_answer) answer_now_ = true;
    if (header.number != 0) take_segment(header, payload);
}

void PacketLink::take_segment(const wire::PacketHeader& header, const uint8_t* payload) {
    idle_ = 0;
    unacknowledged_++;
    if (header.number <= received_) {
        counts_.repeated++;
        answer_now_ = true;
        return;
    }
    if (header.number > base_ + slots_) {  // its slot may hold what is not taken yet
        answer_now_ = true;
        return;
    }
    highest_ = std::max(highest_, header.number);
    if (header.number != received_ + 1) {
        answer_now_ = true;
        keep(header.number, payload, header.length);
        return;
    }
    ready_.push_back({payload, header.length});
    received_++;
    while (waiting_[(received_ + 1) & mask_] != 0) {
        received_++;
        const uint64_t slot = received_ & mask_;
        ready_.push_back({&in_[slot * stride_], waiting_[slot]});
        waiting_[slot] = 0;
    }
}

// A segment that came before the one before it.
void PacketLink::keep(uint64_t number, const uint8_t* payload, size_t size) {
    const uint64_t slot = number & mask_;
    if (waiting_[slot] != 0) {
        counts_.repeated++;
        return;
    }
    std::memcpy(&in_[slot * stride_], payload, size);
    waiting_[slot] = static_cast<uint32_t>(size);
    counts_.ahead++;
}

void PacketLink::take_ack(const wire::PacketHeader& header, const uint8_t* map) {
    peer_window_ = std::max<uint32_t>(header.window, 1);
    if (static_cast<int32_t>(header.seen - peer_seen_) > 0) peer_seen_ = header.seen;
    uint64_t news = 0;
    while (acked_ < header.ack) {
        const Sent& sent = sent_of(++acked_);
        if (sent.arrived) {
            arrived_ahead_--;
            continue;
        }
        if (sent.lost) lost_--;
        if (sent.order == header.seen) sample(now_ - sent.at);
        news++;
    }
    if (header.flags & wire::packet_selected) {
        news += take_map(header.ack, map, header.length);
        find_lost();
    }
    if (news == 0) return;
    grow(news);
    probes_ = 0;
    probe_at_ = filled_ == acked_ ? 0 : now_ + patience();
}

uint64_t PacketLink::take_map(uint64_t ack, const uint8_t* map, size_t size) {
    uint64_t news = 0;
    for (size_t i = 0; i < size * 8; i++) {
        const uint64_t number = ack + 2 + i;
        if (!(map[i / 8] >> i % 8 & 1) || number <= acked_ || number > sent_to_) continue;
        Sent& sent = sent_of(number);
        if (sent.arrived) continue;
        sent.arrived = true;
        arrived_ahead_++;
        if (sent.lost) lost_--;
        sent.lost = false;
        news++;
    }
    return news;
}

void PacketLink::find_lost() {
    bool anew = false;
    for (uint64_t number = acked_ + 1; number <= sent_to_; number++) {
        Sent& sent = sent_of(number);
        if (sent.arrived || sent.lost) continue;
        if (static_cast<int32_t>(peer_seen_ - sent.order) < reordering) continue;
        sent.lost = true;
        lost_++;
        anew |= number > recovery_;
    }
    if (!anew) return;
    recovery_ = sent_to_;
    window_ = threshold_ = std::max(window_ / 2, least_window);
}

void PacketLink::sample(int64_t round_trip) {
    round_trip = std::max<int64_t>(round_trip, 1);
    if (round_trip_ == 0) {
        round_trip_ = round_trip;
        deviation_ = round_trip / 2;
        return;
    }
    deviation_ += (std::abs(round_trip - round_trip_) - deviation_) / 4;
    round_trip_ += (round_trip - round_trip_) / 8;
}

void PacketLink::grow(uint64_t segments) {
    const auto more = static_cast<double>(segments);
    window_ += window_ < threshold_ ? more : more / window_;
    window_ = std::min<double>(window_, slots_);
}

// Says what has arrived, the segments behind the first missing one by a map of bits.
void PacketLink::acknowledge() {
    wire::PacketHeader header;
    header.flags = wire::packet_selected;
    header.window = said_window_ = own_window();
    header.ack = received_;
    header.order = ++order_;
    header.seen = seen_;
    uint8_t* map = ack_packet_.data() + wire::packet_header_size;
    if (highest_ > received_ + 1) {
        const uint64_t bits = std::min<uint64_t>(highest_ - received_ - 1, slots_);
        header.length = static_cast<uint16_t>((bits + 7) / 8);
        std::memset(map, 0, header.length);
        for (uint64_t i = 0; i < bits; i++) {
            if (waiting_[(received_ + 2 + i) & mask_] == 0) continue;
            map[i / 8] = static_cast<uint8_t>(map[i / 8] | 1 << i % 8);
        }
    }
    wire::seal_packet(ack_packet_.data(), header, keys_.out);
    const PacketView view{ack_packet_.data(), wire::packet_header_size + header.length};
    const int taken = driver_->send(&view, 1);
    if (taken < 0) broken_ = true;
    if (taken != 1) return;
    counts_.sent++;
    unacknowledged_ = idle_ = 0;
    answer_now_ = false;
    said_at_ = ghost::monotonic_us();
}

}  // namespace kernet
