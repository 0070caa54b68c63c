// SPDX-License-Identifier: BSD-3-Clause
// A link as its socket sees it: frames go in, frames come out.
//
// One interface for every kind: rings in memory that both ends map (shm.hpp), a stream of bytes
// (byte_link.hpp), or two of these side by side (pair.hpp). A link that keeps messages where the
// other end reads them offers the place for the next one: the socket then writes it there itself,
// without a frame and with one call for each message. One thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <sys/types.h>

#include "kernet-btl/link/frame.hpp"

namespace kernet {

// What a link tells its socket. Called inside poll(), take_first_ack() and take_back(); may send on
// the same link, must not destroy it.
class LinkEvents {
  public:
    virtual ~LinkEvents() = default;
    virtual wire::FrameLimits limits() const = 0;
    virtual void on_ack(uint64_t ack) = 0;
    // A whole message, its number checked against limits(); may be a repeated one. False: it is not
    // to be believed, and the link broke.
    virtual bool on_data(uint64_t seq, uint8_t tag, uint8_t* bytes, size_t size) = 0;
    // A bulk frame begins: where its body goes (room for length - head bytes), null to discard it.
    virtual uint8_t* on_bulk(const wire::FrameHeader& header, const uint8_t* head) = 0;
    // The body is complete (placed, or discarded).
    virtual void on_bulk_done(const wire::FrameHeader& header) = 0;
    virtual void on_control(wire::FrameType type) = 0;
};

class Link {
  public:
    enum class Poll { idle, progress, broken };
    // What a link is like for as long as it stands.
    struct Traits {
        // Messages may be written where the link keeps them, see below.
        bool in_place = false;
        // A look costs a few loads and no system call: it belongs in every pass.
        bool quick = false;
    };
    // Where the next message goes if it has fewer bytes than `limit`.
    struct Place {
        uint8_t* begin = nullptr;
        size_t limit = 0;
    };

    // Nothing has come as long as the word has another value than this.
    struct Bell {
        const std::atomic<uint64_t>* word = nullptr;  // null: poll() must be asked
        uint64_t rung = 0;
    };

    explicit Link(Traits traits) : traits_(traits) {}
    virtual ~Link() = default;
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

    const Traits& traits() const { return traits_; }

    // --- in place; only if traits() say so ---
    // Changes with commit() and write(). A longer message, or one for which there is none now, asks
    // reserve().
    const Place& place() const { return place_; }
    // Where a message of that size goes, null if there is no room now. Nothing is sent before
    // commit(); a second reserve() replaces the first.
    virtual uint8_t* reserve(size_t /*size*/) { return nullptr; }
    // Sends the message that was written to the place, or to what reserve() gave.
    virtual void commit(size_t /*size*/, uint8_t /*tag*/, uint64_t /*seq*/) {}
    // The link is left: tells what the other end has taken (on_ack()) and gives back, as frames in
    // their order, the messages it has not; of bulk messages the socket has the frames.
    virtual void take_back(LinkEvents& /*events*/, FramePool& /*pool*/, FrameQueue& /*tail*/) {}
    // The other end has not taken everything.
    virtual bool keeps() { return false; }

    // --- frames ---
    // Writes as much as the link takes of the frames from `first` on, of which `offset` bytes
    // are already out; stamps them with `ack`. Returns the bytes written, -1 if the link broke.
    virtual ssize_t write(Frame* first, size_t offset, uint64_t ack) = 0;
    // Sends a control frame if it can go out whole and now. Only between frames. The first of every
    // link is an acknowledgement; later ones are none where the other end sees what was taken.
    virtual bool write_control(wire::FrameType type, uint64_t ack) = 0;
    // Takes the acknowledgement every link begins with, if it has come and is the next frame, and
    // nothing else. False if the link broke.
    virtual bool take_first_ack(LinkEvents& events) = 0;
    // Takes what has arrived, at most a few buffers full.
    virtual Poll poll(LinkEvents& events) = 0;
    // poll() has nothing to do: a quick link says so for one load.
    bool quiet() const {
        return bell_.word && bell_.word->load(std::memory_order_acquire) != bell_.rung;
    }

    // What made it break: static text, or null if the connection was lost or closed.
    virtual const char* wrong() const = 0;

    virtual const char* name() const = 0;
    // Readable when poll() has something to do; -1: nothing says so, it must be tried.
    virtual int fd() const = 0;
    // poll() has something to do of which fd() does not tell any more.
    virtual bool holds() const { return false; }
    // What is due by itself: sending again, acknowledging. Called with every look at the link;
    // `absent`: by the control side, for a rank that may not look for long. False if it broke.
    virtual bool tend(bool /*absent*/) { return true; }
    // tend() must be called.
    virtual bool tended() const { return false; }
    // That this end leaves is told by a frame on it, not beside it.
    virtual bool tells_leaving() const { return true; }
    // It was given up because nothing ever came by it.
    virtual bool mute() const { return false; }
    // So much was lost on it that another link is better.
    virtual bool lossy() const { return false; }
    // The other end's node does not answer any more, which nothing else on this link would tell.
    virtual bool node_is_dead() const { return false; }
    // Everything written has arrived, or will without us.
    virtual bool settled() const { return true; }
    // Whether somebody waits for fd() to be readable, or poll() is called without being asked.
    virtual void waited_for(bool) {}

  protected:
    Place place_;
    Bell bell_;

  private:
    const Traits traits_;
};

}  // namespace kernet
