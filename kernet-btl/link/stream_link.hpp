// A link that is no ring, as its socket sees it: frames go in, frames come out.
//
// Either a stream of bytes (byte_link.hpp) or two of them side by side (pair.hpp). One thread.
#pragma once

#include <cstdint>
#include <sys/types.h>

#include "kernet-btl/link/frame.hpp"

namespace kernet {

// What a stream link tells its socket while it receives. Called inside poll(); may send on the
// same link, must not destroy it.
class LinkEvents {
  public:
    virtual ~LinkEvents() = default;
    virtual wire::FrameLimits limits() const = 0;
    virtual void on_ack(uint64_t ack) = 0;
    // A whole data frame, already checked against limits(); may be a repeated one.
    virtual void on_data(const wire::FrameHeader& header, uint8_t* bytes) = 0;
    // A bulk frame begins: where its body goes (room for length - head bytes), null to discard it.
    virtual uint8_t* on_bulk(const wire::FrameHeader& header, const uint8_t* head) = 0;
    // The body is complete (placed, or discarded).
    virtual void on_bulk_done(const wire::FrameHeader& header) = 0;
    virtual void on_control(wire::FrameType type) = 0;
};

class StreamLink {
  public:
    enum class Poll { idle, progress, broken };

    StreamLink() = default;
    virtual ~StreamLink() = default;
    StreamLink(const StreamLink&) = delete;
    StreamLink& operator=(const StreamLink&) = delete;

    // Writes as much as the link takes of the frames from `first` on, of which `offset` bytes
    // are already out; stamps them with `ack`. Returns the bytes written, -1 if the link broke.
    virtual ssize_t write(Frame* first, size_t offset, uint64_t ack) = 0;
    // Sends a control frame if it can go out whole and now. Only between frames.
    virtual bool write_control(wire::FrameType type, uint64_t ack) = 0;
    // Takes the acknowledgement every link begins with, if it has come and is the next frame, and
    // nothing else. False if the link broke.
    virtual bool take_first_ack(LinkEvents& events) = 0;
    // Takes what has arrived, at most a few buffers full.
    virtual Poll poll(LinkEvents& events) = 0;

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
};

}  // namespace kernet
