// SPDX-License-Identifier: BSD-3-Clause
// What a KerNet socket with filters has beside one without: its chain, messages that wait to be
// encoded, and the one that arrives in pieces. docs/FILTERS.md, "On the wire".
//
// Everything such a socket sends is a data frame: a message encoded whole, or, of what is long, a
// frame that says what begins and then pieces, each encoded by itself. A frame is encoded once,
// under its number, and kept as it is until it is acknowledged. Data side only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernet-btl/filter/list.hpp"
#include "kernet-btl/link/frame.hpp"

namespace kernet {

using ghost::Status;

// The filters of a process's streams: what all its sockets share. Lives as long as the data path.
class Filters {
  public:
    // own: whose sockets they are; its peer does not matter.
    Filters(filter::List list, filter::SocketId own)
        : list_(std::move(list)), own_(std::move(own)), arrived_(wire::max_message) {}

    uint32_t rank() const { return own_.rank; }
    void begin_life(const std::string& life) { own_.life = life; }
    filter::SocketId socket_to(uint32_t peer) const {
        filter::SocketId socket = own_;
        socket.peer = peer;
        return socket;
    }
    filter::Chain chain_to(uint32_t peer) const { return list_.chain(socket_to(peer)); }
    filter::Scratch& scratch() { return scratch_; }
    // A frame must hold some of a message, however a user's filter blows it up.
    Status check() const {
        if (chain_to(own_.rank).bound(1024) < wire::max_message) return {};
        return ghost::make_error(ghost::Code::invalid, "use filters", list_.name(),
                                 "1024 bytes would become more than a frame holds");
    }
    // Where a message of at most wire::max_message bytes is decoded to. Valid until the next one.
    uint8_t* arrived() { return arrived_.data(); }

  private:
    filter::List list_;
    filter::SocketId own_;
    filter::Scratch scratch_;
    std::vector<uint8_t> arrived_;
};

class Filtered {
  public:
    Filtered(Filters& filters, FramePool& pool, uint32_t peer)
        : filters_(filters), pool_(pool), peer_(peer), chain_(filters.chain_to(peer)) {}
    // Gives what waits back to the pool; nobody is told.
    ~Filtered() { drop(); }
    Filtered(const Filtered&) = delete;
    Filtered& operator=(const Filtered&) = delete;

    // --- sending ---
    // A message to be encoded when its turn comes: a data or bulk frame of the pool, whose body
    // stays the caller's. Takes it over.
    void add(Frame* plain);
    bool waits() const { return !plain_.empty(); }
    // Bytes of what waits.
    size_t bytes() const { return bytes_; }
    // The next frame, encoded under that number; null if nothing waits. With the last one of a
    // message goes its token.
    Frame* next(uint64_t number);
    // As Socket::own_body(), for what waits.
    void own_body(const void* token);
    // Of what waits, the tokens of messages nobody will send now; the rest is given back.
    std::vector<void*> drop();

    // --- receiving ---
    struct Arrived {
        filter::Part part = filter::Part::whole;
        uint8_t* bytes = nullptr;  // valid until the next frame
        size_t size = 0;
    };
    // Decodes a frame's bytes: a message to out.bytes, what begins to `coming` (the body of a bulk
    // still has to be placed), a piece to its place, without counting it as done. False if they
    // are not what the peer made of its frame of that number: counted, and said in the log; it may
    // be repeated.
    bool take(uint64_t number, uint8_t tag, const uint8_t* bytes, size_t size, Arrived& out);
    // Frames that were not believed.
    uint64_t refused() const { return refused_; }

    // The message that arrives in pieces.
    struct Long {
        bool begun = false;
        bool bulk = false;
        uint8_t tag = 0;
        uint8_t head_size = 0;
        uint8_t head[wire::max_bulk_head] = {};
        uint8_t* body = nullptr;  // null: refused
        uint64_t size = 0;
        uint64_t done = 0;
        std::vector<uint8_t> own;  // of a message that is no bulk
    };
    Long coming;

    void suspend() { chain_.suspend(); }
    void wakeup() { chain_.wakeup(); }
    // Suspended: filters_ has another life.
    void begin_life() { chain_.begin_life(filters_.socket_to(peer_)); }

  private:
    Frame* encode(uint64_t number, uint8_t tag, filter::Part part, const uint8_t* bytes,
                  size_t size);
    Frame* begin(Frame& plain, uint64_t number);
    std::string decode(uint64_t number, uint8_t tag, const uint8_t* bytes, size_t size,
                       Arrived& out);
    bool begin(const Arrived& what, uint8_t tag);
    size_t room_for(filter::Part part) const;
    bool fits(size_t size) const { return chain_.bound(size) + 1 <= wire::max_message; }

    Filters& filters_;
    FramePool& pool_;
    uint32_t peer_;
    filter::Chain chain_;
    FrameQueue plain_;
    size_t bytes_ = 0;
    bool begun_ = false;  // of the first that waits, the beginning is encoded
    size_t offset_ = 0;   // and so many bytes
    uint64_t refused_ = 0;
};

}  // namespace kernet
