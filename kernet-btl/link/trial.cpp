// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/trial.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <sys/socket.h>

namespace kernet {

namespace {

using wire::TrialKind;
using wire::TrialMessage;

constexpr uint32_t small_turns = 64, long_turns = 16;  // by packets and by the connection together
constexpr size_t small_bytes = 64;
constexpr int64_t least_patience_us = 2'000;  // a process may lose its core for so long
constexpr int64_t limit_us = 300'000;
constexpr int64_t grace_us = 20'000;  // for answers that are late at the end
constexpr uint32_t silent_turns = 8;  // of packets, none answered: nothing gets across
static_assert(small_turns + long_turns <= wire::max_trial_turns);

void keep_least(int64_t& least, int64_t time) {
    least = least == 0 ? time : std::min(least, time);
}

}  // namespace

double TrialFigures::ratio() const {
    if (lossy() || packets == 0 || connection == 0) return 0;
    const double small = static_cast<double>(packets) / static_cast<double>(connection);
    if (long_connection == 0) return small;
    if (long_packets == 0) return 0;
    return std::sqrt(small * static_cast<double>(long_packets) /
                     static_cast<double>(long_connection));
}

std::string TrialFigures::text() const {
    const auto us = [](int64_t ns) { return static_cast<double>(ns) / 1000; };
    std::string out = fmt::format("there and back {:.1f} us by packets, {:.1f} by the connection",
                                  us(packets), us(connection));
    if (long_connection > 0) {
        out += fmt::format(", long {:.1f} and {:.1f}", us(long_packets), us(long_connection));
    }
    return out + fmt::format(", {} of {} packets lost", lost, sent);
}

Trial::Trial(const ghost::Fd& connection, PacketDriver& driver, const PacketKeys& keys, Role role,
             Clock clock)
    : connection_(connection),
      driver_(driver),
      keys_(keys),
      role_(role),
      clock_(clock),
      begun_at_(now_us()),
      looked_at_(begun_at_),
      packet_(std::min<size_t>(driver.max_packet(), wire::packet_header_size + UINT16_MAX)) {
    if (role == Role::answers) return;
    turns_.resize(1 + small_turns + (role == Role::asks_long_too ? long_turns : 0));
}

bool Trial::is_long(uint32_t turn) const {
    return turn > small_turns;
}

uint16_t Trial::packets_of(uint32_t turn) const {
    if (!is_long(turn)) return 1;
    const size_t fit = wire::max_trial_bytes / payload();
    return static_cast<uint16_t>(std::clamp<size_t>(fit, 1, wire::max_trial_packets));
}

// A packet's answer comes about when that of the connection would.
int64_t Trial::patience() const {
    const int64_t usual = std::max(figures_.connection, figures_.long_connection) / 1000;
    return std::max(least_patience_us, 4 * usual);
}

int64_t Trial::due_at() const {
    if (driver_.fd() < 0) return looked_at_ + 1'000;  // nothing tells of its packets
    if (role_ == Role::answers || turn_ == 0) return begun_at_ + 2 * limit_us;
    const int64_t next = all_ ? all_ + grace_us : turns_[turn_].sent_at / 1000 + patience();
    return std::min(next, begun_at_ + limit_us);
}

Trial::State Trial::step() {
    moved_ = false;
    looked_at_ = now_us();
    if (state_ != State::going) return state_;
    if (!flush() || !take_bytes() || !take_packets()) {
        if (state_ == State::going) state_ = State::broken;
        return state_;
    }
    if (state_ == State::going && role_ != Role::answers) go_on();
    return state_;
}

// --- asking ---

void Trial::begin_turn() {
    Turn& turn = turns_[++turn_];
    TrialMessage ask;
    ask.turn = turn_;
    turn.sent = packets_of(turn_);
    turn.sent_at = clock_();
    if (!in_packets(turn_)) {
        const size_t bytes = is_long(turn_) ? packets_of(turn_) * payload() : small_bytes;
        ask.length = static_cast<uint32_t>(std::min<size_t>(bytes, wire::max_trial_bytes));
        say(ask);
        return;
    }
    ask.count = turn.sent;
    for (uint16_t i = 0; i < turn.sent; i++) {
        ask.length = i;
        say_by_packet(ask, is_long(turn_) ? payload() : small_bytes);
    }
}

void Trial::go_on() {
    const int64_t now = now_us();
    const Turn& turn = turns_[turn_];
    const bool over = now - begun_at_ >= limit_us;
    const bool late = turn_ > 0 && in_packets(turn_) && now - turn.sent_at / 1000 >= patience();
    if (turn_ > 0 && !turn.answered && !late && !over) return;
    const bool silent = figures_.packets == 0 && turn_ >= 2 * silent_turns;
    const bool last = turn_ + 1 == turns_.size();
    if (last && all_ == 0) all_ = now;
    const bool missing = last && !over && now - all_ < grace_us && figures().lost > 0;
    if (missing && !silent) return;
    if (over || silent || last) {
        state_ = State::done;
        return;
    }
    begin_turn();
}

void Trial::answered(uint32_t number, uint16_t count) {
    if (role_ == Role::answers || number == 0 || number > turn_) return;
    Turn& turn = turns_[number];
    if (turn.answered) return;
    turn.answered = true;
    turn.came = std::min(count, turn.sent);
    const int64_t time = std::max<int64_t>(clock_() - turn.sent_at, 1);
    if (in_packets(number)) {
        // (an incomplete one has taken less than it should)
        if (turn.came == turn.sent) {
            keep_least(is_long(number) ? figures_.long_packets : figures_.packets, time);
        }
    } else {
        keep_least(is_long(number) ? figures_.long_connection : figures_.connection, time);
    }
}

TrialFigures Trial::figures() const {
    TrialFigures out = figures_;
    for (uint32_t number = 2; number <= turn_; number += 2) {
        out.sent += turns_[number].sent;
        out.lost += turns_[number].sent - turns_[number].came;
    }
    return out;
}

void Trial::tell(wire::LinkKind choice) {
    TrialMessage message;
    message.kind = TrialKind::verdict;
    message.choice = choice;
    say(message);
}

// --- answering ---

void Trial::asked(const TrialMessage& message) {
    if (role_ != Role::answers) return;
    TrialMessage answer = message;
    answer.kind = TrialKind::answer;
    answer.length = 0;
    say(answer);
}

// --- both ---

void Trial::say(const TrialMessage& message) {
    out_.append(reinterpret_cast<const char*>(&message), sizeof message);
    out_.append(message.length, 0);
    if (!flush()) state_ = State::broken;
}

void Trial::say_by_packet(const TrialMessage& message, size_t size) {
    std::memcpy(packet_.data() + wire::packet_header_size, &message, sizeof message);
    wire::PacketHeader header;
    header.length = static_cast<uint16_t>(std::clamp(size, sizeof message, payload()));
    header.number = message.turn;
    wire::seal_packet(packet_.data(), header, keys_.out);
    const PacketView view{packet_.data(), wire::packet_header_size + header.length};
    driver_.send(&view, 1);  // (what it does not take is lost)
}

bool Trial::flush() {
    while (!out_.empty()) {
        const ssize_t done =
            ::send(connection_.get(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0) return errno == EAGAIN || errno == EINTR;
        out_.erase(0, static_cast<size_t>(done));
    }
    return true;
}

bool Trial::take_bytes() {
    uint8_t bytes[16 * 1024];
    for (;;) {
        const size_t most =
            in_skip_ > 0 ? std::min<size_t>(in_skip_, sizeof bytes) : sizeof in_ - in_have_;
        const ssize_t got = ::recv(connection_.get(), bytes, most, MSG_DONTWAIT);
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        if (got == 0) return false;
        moved_ = true;
        if (in_skip_ > 0) {
            in_skip_ -= static_cast<uint32_t>(got);
        } else {
            std::memcpy(reinterpret_cast<uint8_t*>(&in_) + in_have_, bytes,
                        static_cast<size_t>(got));
            in_have_ += static_cast<size_t>(got);
            if (in_have_ < sizeof in_) continue;
            if (wire::check(in_)) return false;
            in_skip_ = in_.length;
        }
        if (in_skip_ == 0 && !take_message()) return state_ == State::done;
    }
}

// The one that is complete in `in_`. False: it was the last.
bool Trial::take_message() {
    in_have_ = 0;
    if (in_.kind == TrialKind::ask) asked(in_);
    if (in_.kind == TrialKind::answer) answered(in_.turn, in_.count);
    if (in_.kind == TrialKind::verdict && role_ == Role::answers) {
        told_ = in_.choice;
        state_ = State::done;
    }
    return state_ == State::going;
}

bool Trial::take_packets() {
    PacketView packets[wire::max_trial_packets];
    for (;;) {
        const int count = driver_.receive(packets, wire::max_trial_packets);
        // One that is broken answers nothing any more, which is what comes out of the trial.
        if (count <= 0) return true;
        moved_ = true;
        for (int i = 0; i < count; i++) take(packets[i]);
    }
}

void Trial::take(const PacketView& packet) {
    wire::PacketLimits limits;
    limits.window = wire::max_trial_turns;
    limits.length = payload();
    wire::PacketHeader header;
    TrialMessage message;
    if (wire::check_packet(packet.data, packet.size, keys_.in, limits, header)) return;
    if (header.length < sizeof message) return;
    std::memcpy(&message, packet.data + wire::packet_header_size, sizeof message);
    if (wire::check(message)) return;
    if (message.kind == TrialKind::answer) return answered(message.turn, message.count);
    if (message.kind != TrialKind::ask || role_ != Role::answers) return;
    if (message.turn != coming_) come_ = 0;
    coming_ = message.turn;
    come_++;
    // With the last one, whatever is missing before it.
    if (message.length + 1 < message.count) return;
    message.kind = TrialKind::answer;
    message.count = std::min(come_, wire::max_trial_packets);
    message.length = 0;
    say_by_packet(message, small_bytes);
}

}  // namespace kernet
