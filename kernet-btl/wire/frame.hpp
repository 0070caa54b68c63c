// SPDX-License-Identifier: BSD-3-Clause
// The header every frame of a byte-stream link carries, and its validation (docs/WIRE.md).
//
// Fields are little-endian, which is what every machine Open MPI runs kernet on has; encode() and
// decode() are the only places that know the layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kernet::wire {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian");

inline constexpr uint32_t frame_magic = 0x46'54'4e'4b;  // "KNTF"
inline constexpr uint8_t frame_version = 2;

// A message that travels in one piece; also what one frame in a ring holds at most, bytes.
inline constexpr size_t max_message = 128 * 1024 + 1024;
// The head of a bulk frame: what tells the receiver where the body belongs, bytes.
inline constexpr size_t max_bulk_head = 32;
// What may precede a message so that the message lies in the kernel's buffers as it lies in
// memory, bytes: a copy from one place in a line of memory to another takes up to 1.4 of the time.
inline constexpr size_t max_pad = 63;
// A bulk body, bytes. A bound on what is believed, not on memory: bodies are placed, not allocated
// by the link.
inline constexpr uint64_t max_bulk_body = uint64_t{1} << 40;

enum class FrameType : uint8_t {
    data = 1,     // numbered; one message of at most max_message bytes
    bulk = 2,     // numbered; head, then a body that is received where the receiver says
    ack = 3,      // not numbered: only the `ack` field counts
    suspend = 4,  // not numbered: the sender closes now and will come back
    bye = 5,      // not numbered: the sender unattached its socket, nothing more will come
};

struct FrameHeader {
    uint32_t magic = frame_magic;
    uint8_t version = frame_version;
    FrameType type = FrameType::data;
    uint8_t tag = 0;     // the upper layer's
    uint8_t head = 0;    // of the payload; bulk: the head, data: to be skipped
    uint32_t epoch = 0;  // sender's placement number, low 32 bits; as in the handshake
    uint32_t reserved = 0;
    uint64_t length = 0;  // payload bytes that follow
    uint64_t seq = 0;     // number of the frame, from 1; 0 if not numbered
    uint64_t ack = 0;     // last number received in order from the other side
};
static_assert(sizeof(FrameHeader) == 40);

inline constexpr size_t frame_header_size = sizeof(FrameHeader);

// What the receiver knows, to judge a header by.
struct FrameLimits {
    uint32_t epoch = 0;     // of the peer, from the handshake
    uint64_t received = 0;  // last number received in order
    uint64_t sent = 0;      // last number ever given to a frame of ours
};

// Copies a header out of received bytes (any alignment).
inline FrameHeader decode(const uint8_t* bytes) {
    FrameHeader header;
    std::memcpy(static_cast<void*>(&header), bytes, sizeof header);
    return header;
}

// nullptr if the header may be believed, else what is wrong with it (static text).
const char* check(const FrameHeader& header, const FrameLimits& limits);

}  // namespace kernet::wire
