// SPDX-License-Identifier: BSD-3-Clause
// The header every message of a stream carries between two processes (docs/WIRE.md, "Streams").
#pragma once

#include <cstdint>

#include "kernet-btl/wire/frame.hpp"

namespace kernet::wire {

enum class StreamKind : uint8_t {
    data =
        1,    // number: of the message, from 1, counted for each pair of sockets; body: the message
    ack = 2,  // number: the last one the application has taken
    resume = 3,  // number: the last one received; what follows it is sent (again)
    // FIFO and LIFO: between a socket and the orderer
    hello = 4,     // all it has to give and how many it wants: replaces what it said before
    announce = 5,  // number: of a message it has; body: its stamp
    ask = 6,       // number: messages it wants besides
    unask = 7,     // number: messages it no longer wants
    give = 8,      // to a writer. number: of its message; body: the reader's socket and incarnation
    not_given = 9,  // to the orderer. body: of the reader that has got nothing
};

#pragma pack(push, 1)
struct StreamHeader {
    uint64_t stream = 0;
    uint64_t number = 0;
    uint32_t ack = 0;  // data of DIRECT streams: low half of the last number taken
    uint16_t from = 0, to = 0;
    uint16_t from_incarnation = 0, to_incarnation = 0;  // low halves
    StreamKind kind = StreamKind::data;
    uint8_t reserved[3] = {};
};
#pragma pack(pop)
static_assert(sizeof(StreamHeader) == max_bulk_head);

}  // namespace kernet::wire
