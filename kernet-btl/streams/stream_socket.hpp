// SPDX-License-Identifier: BSD-3-Clause
// A KerNet socket of a stream, as the process it is attached to has it (RR-4987, 3.2): what is
// kept, what has come, and what is known of the other sockets.
//
// The exactly-once promise of a stream is made here, between its sockets, and not by the links
// between processes (socket.hpp), because a socket leaves its process: a sender keeps every message
// until the application at the other end has taken it, and a socket that is somewhere else now says
// what it has received. All of it is called inside the gate of the node's data path.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "kernet-btl/streams/body.hpp"
#include "kernet-btl/streams/directory_entry.hpp"
#include "base/json.hpp"
#include "kernet-btl/wire/stream.hpp"

namespace kernet {

// Out of a handle. False: that is no message.
bool read_body(const nlohmann::json& json, BodyPtr& out);

// What a socket needs of the process it is in.
class StreamHost {
  public:
    virtual ~StreamHost() = default;
    // To another process, or to this one. Never lost while both live; in order.
    virtual void send_message(uint32_t process, const wire::StreamHeader& header,
                              const BodyPtr& body) = 0;
    virtual void know(const Location& where) = 0;
    // Somebody may be waiting for what has just changed.
    virtual void woken() = 0;
};

// Why nothing more will come or go.
enum class StreamEnd : uint8_t {
    none,
    left,       // the others have unattached
    lost,       // the process or node of the other end is gone
    destroyed,  // the stream is
    own,        // this socket was given up by the managers: its node was away for too long
};

inline constexpr size_t max_stream_message = size_t{1} << 30;

class StreamSocket {
  public:
    // entry: with this socket attached here. limit: bytes kept for the others before send() waits.
    static std::unique_ptr<StreamSocket> make(StreamHost& host, const Entry& entry, uint16_t number,
                                              size_t limit);
    virtual ~StreamSocket() = default;
    StreamSocket(const StreamSocket&) = delete;
    StreamSocket& operator=(const StreamSocket&) = delete;

    const Entry& entry() const { return entry_; }
    uint16_t number() const { return number_; }
    uint32_t incarnation() const { return incarnation_; }
    uint8_t role() const { return role_; }
    StreamEnd end() const { return end_; }

    // A map; ignored if it is no newer.
    void update(const Entry& entry);
    // A message for this socket, from another one or itself.
    void receive(const wire::StreamHeader& header, BodyPtr body);

    // A long message does not wait until the others have said that they have taken short ones.
    bool may_send(size_t size) const {
        return kept_bytes_ <= limit_ / 4 || kept_bytes_ + size <= limit_;
    }
    virtual void send(BodyPtr body) = 0;
    // The next message; null: none has come.
    virtual BodyPtr take() = 0;
    virtual bool readable() const = 0;
    // So many callers wait for a message (FIFO and LIFO: that is what makes one come).
    virtual void wanted(size_t /*callers*/) {}
    // Has the application at the other end taken all?
    bool all_taken() const { return kept_bytes_ == 0; }
    // Regularly: what was put off to go along with something else goes by itself.
    virtual void tick() {}

    // From here on nothing is received, so that what save() or farewells() says stays true...
    void stop() { stopped_ = true; }
    // ... and from here on again: what was not received comes again.
    void go_on();
    // What the directory is told about a socket that is suspended or unattached.
    virtual Farewells farewells(bool suspended) const = 0;
    // The state of a suspended socket; restore() is for the fresh one at its next place.
    virtual nlohmann::json save() const = 0;
    // False: the state is none of such a socket; then nothing else may be done with this one.
    virtual bool restore(const nlohmann::json& state) = 0;
    // Called once, after make() and restore().
    void begin();

  protected:
    StreamSocket(StreamHost& host, const Entry& entry, uint16_t number, size_t limit);
    virtual void mapped() = 0;  // entry_ is new
    virtual void received(const wire::StreamHeader& header, BodyPtr body) = 0;
    virtual void resume_all() = 0;

    const SocketEntry* attached(uint16_t number) const;
    void tell(uint16_t to, wire::StreamKind kind, uint64_t number, const BodyPtr& body = {},
              uint32_t ack = 0);

    StreamHost& host_;
    Entry entry_;
    const uint16_t number_;
    const uint32_t incarnation_;
    const uint8_t role_;
    const size_t limit_;
    size_t kept_bytes_ = 0;
    StreamEnd end_ = StreamEnd::none;

  private:
    struct Early {
        wire::StreamHeader header;
        BodyPtr body;
    };
    void judge_end();
    bool stopped_ = false;
    std::deque<Early> early_;  // from incarnations the map does not know yet
};

}  // namespace kernet
