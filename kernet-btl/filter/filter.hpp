// SPDX-License-Identifier: BSD-3-Clause
// A filter: one stage of what is done to every message of a stream at its two ends (RR-4987: the
// filter chain of a stream). docs/FILTERS.md has the list and what each is for.
//
// A filter belongs to one KerNet socket and knows both directions. Its state is ordinary memory, so
// it migrates with the process; between suspend() and wakeup() it must hold nothing else (no
// descriptor, no mapping). Data side only: one thread at a time, inside the gate.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.hpp"

namespace kernet::filter {

using ghost::Result;
using ghost::Status;

// What a frame's bytes are of a message. The values are on the wire.
enum class Part : uint8_t {
    whole = 0,           // a message
    bulk_begins = 1,     // 8 bytes size of the body, then the head; the body follows in pieces
    message_begins = 2,  // 8 bytes size; a message too long for one frame once encoded
    piece = 3,           // the next bytes of what has begun
};

// The place of some bytes in a stream. Both ends know it without being told.
struct MessageId {
    uint32_t from = 0;    // sender's rank
    uint32_t to = 0;      // receiver's rank
    uint64_t number = 0;  // of the frame, from 1
    uint8_t tag = 0;      // the upper layer's
    Part part = Part::whole;
};

// Whose filter it is.
struct SocketId {
    std::string job;                   // decimal job number
    std::string life;                  // of the job; a restart begins another
    std::array<uint8_t, 32> secret{};  // the job's
    uint32_t rank = 0;                 // of this process
    uint32_t peer = 0;
};

class Filter {
  public:
    virtual ~Filter() = default;

    // The most bytes encode() makes of `size`.
    virtual size_t bound(size_t size) const { return size; }
    // Bytes on their way out: from `in` to `out`, which has room for bound(size) and does not
    // overlap. Returns the number of bytes made. Cannot fail: a message that cannot be encoded
    // could neither be sent nor be given back.
    virtual size_t encode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out) = 0;
    // The other way round; `out` has room for `room` bytes. Code::corrupt if the bytes are not what
    // the peer's encode() made for this very place, or do not fit.
    virtual Result<size_t> decode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out,
                                  size_t room) = 0;

    // True: encode() and decode() are not called, look() is, and the bytes stay where they are.
    virtual bool only_looks() const { return false; }
    virtual void look(const MessageId&, const uint8_t*, size_t) {}

    // The process is about to be frozen; it may be continued any number of times from here.
    virtual void suspend() {}
    // It goes on: here, on another node, or again from a snapshot.
    virtual void wakeup() {}
    // Suspended: it goes on in a restarted job, whose filters these are from now on.
    virtual void begin_life(const SocketId&) {}
};

// A filter as the user named it, its option understood; makes the filters of all sockets, which may
// share what it holds and must not outlive it.
class Recipe {
  public:
    virtual ~Recipe() = default;
    // What both ends must agree on, for the handshake and for messages to the user.
    virtual std::string name() const = 0;
    // Once, in the process that is to filter and before the first make(): whatever may be missing
    // there. The error names it.
    virtual Status prepare() { return {}; }
    virtual std::unique_ptr<Filter> make(const SocketId& socket) const = 0;
    // It makes bytes that do not compress, or gains nothing behind one that does.
    virtual bool seals() const { return false; }
    virtual bool before_sealing() const { return false; }
};

}  // namespace kernet::filter
