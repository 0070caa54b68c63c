// SPDX-License-Identifier: BSD-3-Clause
// Measures what packets and the connection beside them can do between two processes, before a link
// is made of them.
//
// One end asks, the other answers. They take turns, so that what disturbs the machine disturbs
// both: a small message there and back by the connection, one by packets, and so on; then long
// ones, if all of the link would go in packets. What counts is the least time of each, as whatever
// else the processors do only adds to it. A packet counts as lost when its answer has not come by
// the end; nothing is sent again. One thread; never blocks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "kernet-btl/link/packet_driver.hpp"
#include "kernet-btl/link/reliable.hpp"
#include "kernet-btl/wire/trial.hpp"

namespace kernet {

// Least times there and back, nanoseconds; 0: not tried, or nothing came.
struct TrialFigures {
    int64_t packets = 0, connection = 0;            // of a small message
    int64_t long_packets = 0, long_connection = 0;  // of a long one
    uint32_t sent = 0, lost = 0;                    // packets

    // Too many packets were lost to be worth it: more than one in 20 (as in pair.cpp).
    bool lossy() const { return lost * 20 > sent; }
    // The time packets take for each unit the connection takes; 0: packets are of no use here.
    double ratio() const;
    std::string text() const;
};

class Trial {
  public:
    enum class Role { asks, asks_long_too, answers };
    enum class State { going, done, broken };

    using Clock = int64_t (*)();  // monotonic nanoseconds

    // All of it has to outlive the trial. driver: connected.
    Trial(const ghost::Fd& connection, PacketDriver& driver, const PacketKeys& keys, Role role,
          Clock clock = ghost::monotonic_ns);

    // Takes what has come and goes on.
    State step();
    // Whether the last step() found something.
    bool moved() const { return moved_; }
    // When step() is due though nothing comes, monotonic microseconds.
    int64_t due_at() const;

    // Who asked, when it is done: what came out, and telling the other end what comes of it.
    TrialFigures figures() const;
    void tell(wire::LinkKind choice);
    // Who answered, when it is done.
    wire::LinkKind told() const { return told_; }

  private:
    struct Turn {
        int64_t sent_at = 0;  // ns
        uint16_t sent = 0;
        uint16_t came = 0;
        bool answered = false;
    };

    int64_t now_us() const { return clock_() / 1000; }
    bool in_packets(uint32_t turn) const { return turn % 2 == 0; }
    bool is_long(uint32_t turn) const;
    uint16_t packets_of(uint32_t turn) const;
    size_t payload() const { return packet_.size() - wire::packet_header_size; }
    int64_t patience() const;

    void begin_turn();
    void go_on();
    void answered(uint32_t turn, uint16_t count);
    void asked(const wire::TrialMessage& message);
    void say(const wire::TrialMessage& message);
    void say_by_packet(const wire::TrialMessage& message, size_t size);
    bool flush();
    bool take_bytes();
    bool take_packets();
    void take(const PacketView& packet);
    bool take_message();

    const ghost::Fd& connection_;
    PacketDriver& driver_;
    PacketKeys keys_;
    Role role_;
    Clock clock_;
    State state_ = State::going;
    bool moved_ = false;
    int64_t begun_at_;             // us
    int64_t looked_at_;            // the same
    std::vector<uint8_t> packet_;  // the one being made
    std::string out_;              // what the connection has not taken yet
    wire::TrialMessage in_;        // the message that is coming by it
    size_t in_have_ = 0;
    uint32_t in_skip_ = 0;  // bytes behind it still to come
    wire::LinkKind told_ = wire::LinkKind::tcp;

    // asking
    std::vector<Turn> turns_;  // [0] is none
    uint32_t turn_ = 0;
    int64_t all_ = 0;  // when there were no more turns, us; 0: there are
    TrialFigures figures_;
    // answering: of the turn whose packets are coming
    uint32_t coming_ = 0;
    uint16_t come_ = 0;
};

}  // namespace kernet
