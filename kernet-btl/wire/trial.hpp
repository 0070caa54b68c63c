// SPDX-License-Identifier: BSD-3-Clause
// What two ends say to each other while they measure a link (docs/WIRE.md, "Trials"): on the
// connection as it is, in packets as the payload of a segment.
#pragma once

#include <cstdint>

#include "kernet-btl/wire/handshake.hpp"

namespace kernet::wire {

inline constexpr uint32_t trial_magic = 0x54'54'4e'4b;  // "KNTT"
inline constexpr uint32_t max_trial_bytes = 64 * 1024;
inline constexpr uint32_t max_trial_turns = 256;
inline constexpr uint16_t max_trial_packets = 16;  // of one turn

enum class TrialKind : uint8_t {
    ask = 1,      // answer when all of this turn has come
    answer = 2,   // `count` packets of the turn have come
    verdict = 3,  // it is over, and `choice` is the link from now on
};

#pragma pack(push, 1)
struct TrialMessage {
    uint32_t magic = trial_magic;
    TrialKind kind = TrialKind::ask;
    LinkKind choice = LinkKind::tcp;
    uint16_t count = 1;   // of packets; 1 on the connection
    uint32_t turn = 0;    // from 1
    uint32_t length = 0;  // on the connection: bytes that follow; in a packet: which it is, from 0
};
#pragma pack(pop)
static_assert(sizeof(TrialMessage) == 16);

// nullptr, or what is wrong with it (static text).
inline const char* check(const TrialMessage& message) {
    if (message.magic != trial_magic) return "wrong magic";
    if (message.kind < TrialKind::ask || message.kind > TrialKind::verdict) return "unknown kind";
    if (message.choice < LinkKind::shm || message.choice > LinkKind::framepair)
        return "unknown link";
    if (message.count == 0 || message.count > max_trial_packets) return "too many packets";
    if (message.turn > max_trial_turns) return "too many turns";
    return message.length <= max_trial_bytes ? nullptr : "too long";
}

}  // namespace kernet::wire
