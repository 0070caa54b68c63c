// SPDX-License-Identifier: BSD-3-Clause
// The header of every packet of a lossy link, and its validation (docs/WIRE.md, "Packets").
//
// A packet carries one segment of the byte stream, or nothing but what has arrived. Number and
// order are two things: a segment keeps its number when it is sent again, the order counts every
// packet that leaves, so that what comes back tells which of the two was seen (RFC 9002, 2).
// Token and checksum seed come out of the handshake and belong to one direction of one link: a
// packet of an earlier link, of a stranger, or with a flipped bit is dropped.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kernet::wire {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packets are little-endian");

inline constexpr uint32_t packet_magic = 0x50'54'4e'4b;  // "KNTP"
inline constexpr uint8_t packet_version = 1;

enum PacketFlag : uint8_t {
    packet_answer = 1,    // the sender wants to hear at once what has arrived
    packet_selected = 2,  // no segment: the payload is a map of what came after `ack` + 1
};

struct PacketHeader {
    uint32_t magic = packet_magic;
    uint8_t version = packet_version;
    uint8_t flags = 0;
    uint16_t length = 0;  // payload bytes
    uint64_t token = 0;
    uint32_t epoch = 0;     // sender's placement number, low 32 bits
    uint32_t window = 0;    // segments after `ack` the sender has room for
    uint64_t number = 0;    // of the segment, from 1; 0: none
    uint64_t ack = 0;       // all segments up to this one have arrived
    uint32_t order = 0;     // of this packet among all that left; wraps
    uint32_t seen = 0;      // highest order that has arrived
    uint64_t checksum = 0;  // XXH3 of all of the packet but this field, with the direction's seed
};
static_assert(sizeof(PacketHeader) == 56);

inline constexpr size_t packet_header_size = sizeof(PacketHeader);
// Segments one side may be ahead of the other's acknowledgement.
inline constexpr uint32_t max_packet_window = 2048;

// What makes packets of one direction of one link.
struct PacketKey {
    uint64_t token = 0;
    uint64_t seed = 0;
    uint32_t epoch = 0;
};

// What the receiver knows, to judge a packet by.
struct PacketLimits {
    uint64_t received = 0;  // last segment received in order
    uint64_t sent = 0;      // last segment ever sent
    uint32_t order = 0;     // order of the last packet sent
    uint32_t window = 0;    // segments after `received` there is room for
    size_t length = 0;      // of a segment, at most
};

// Writes the header before the payload that is there already; fills in token, epoch and checksum.
void seal_packet(uint8_t* packet, PacketHeader header, const PacketKey& key);
// nullptr if the packet may be believed, and `header` is filled; else what is wrong with it (static
// text). Any alignment.
const char* check_packet(const uint8_t* packet, size_t size, const PacketKey& key,
                         const PacketLimits& limits, PacketHeader& header);

}  // namespace kernet::wire
