// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/wire/packet.hpp"

#include <cstring>

#include "base/hash.hpp"

namespace kernet::wire {

namespace {

// The checksum field is last, so that header and payload are hashed around it.
uint64_t checksum(const uint8_t* packet, size_t size, uint64_t seed) {
    const uint64_t front = XXH3_64bits_withSeed(packet, offsetof(PacketHeader, checksum), seed);
    if (size == packet_header_size) return front;
    return XXH3_64bits_withSeed(packet + packet_header_size, size - packet_header_size, front);
}

const char* check_content(const PacketHeader& header, const PacketLimits& limits) {
    if (header.flags & ~(packet_answer | packet_selected)) return "unknown flag";
    if (header.window > max_packet_window) return "window too wide";
    if (header.ack > limits.sent) return "acknowledges what was never sent";
    if (static_cast<int32_t>(limits.order - header.seen) < 0) return "saw what was never sent";
    if (header.flags & packet_selected) {
        return header.number == 0 && header.length <= max_packet_window / 8 ? nullptr
                                                                            : "malformed map";
    }
    if (header.number == 0) return header.length == 0 ? nullptr : "payload without a number";
    if (header.length == 0) return "empty segment";
    if (header.length > limits.length) return "segment too long";
    return header.number <= limits.received + limits.window ? nullptr : "beyond the window";
}

}  // namespace

void seal_packet(uint8_t* packet, PacketHeader header, const PacketKey& key) {
    header.token = key.token;
    header.epoch = key.epoch;
    std::memcpy(packet, &header, sizeof header);
    header.checksum = checksum(packet, sizeof header + header.length, key.seed);
    std::memcpy(packet, &header, sizeof header);
}

const char* check_packet(const uint8_t* packet, size_t size, const PacketKey& key,
                         const PacketLimits& limits, PacketHeader& header) {
    if (size < sizeof header) return "too short";
    std::memcpy(static_cast<void*>(&header), packet, sizeof header);
    if (header.magic != packet_magic) return "wrong magic";
    if (header.version != packet_version) return "wrong version";
    if (header.token != key.token) return "of another link";
    if (header.epoch != key.epoch) return "wrong epoch";
    // Ethernet fills short frames up.
    if (size - sizeof header < header.length) return "cut short";
    if (header.checksum != checksum(packet, sizeof header + header.length, key.seed)) {
        return "wrong checksum";
    }
    return check_content(header, limits);
}

}  // namespace kernet::wire
