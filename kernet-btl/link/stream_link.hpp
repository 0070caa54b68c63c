// Links that carry a stream of bytes: the frames on them, whatever brings the bytes.
//
// Sending is a gather write of as many frames as wait. Receiving goes through a buffer, except for
// the body of a bulk frame, which is read straight to where the upper layer wants it. What moves
// the bytes is below: a socket (tcp.hpp) or the packets of a lossy driver (reliable.hpp). One
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <sys/types.h>
#include <sys/uio.h>

#include "kernet-btl/link/frame.hpp"

namespace kernet {

// What a byte-stream link tells its socket while it receives. Called inside poll(); may send on the
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

    virtual ~StreamLink() = default;
    StreamLink(const StreamLink&) = delete;
    StreamLink& operator=(const StreamLink&) = delete;

    // Writes as much as the link takes of the frames from `first` on, of which `offset` bytes
    // are already out; stamps them with `ack`. Returns the bytes written, -1 if the link broke.
    ssize_t write(Frame* first, size_t offset, uint64_t ack);
    // Sends a control frame if it can go out whole and now. Only between frames.
    bool write_control(wire::FrameType type, uint64_t ack);
    // Takes the acknowledgement every link begins with, if it has come and is the next frame, and
    // nothing else. False if the link broke.
    bool take_first_ack(LinkEvents& events);
    // Takes what has arrived, at most a few buffers full.
    Poll poll(LinkEvents& events);

    uint32_t peer_epoch() const { return peer_epoch_; }
    // What made it break: static text, or null if the connection was lost or closed.
    const char* wrong() const { return wrong_; }

    virtual const char* name() const = 0;
    // Readable when poll() has something to do; -1: nothing says so, it must be tried.
    virtual int fd() const = 0;
    // What is due by itself: sending again, acknowledging. Called with every look at the link;
    // `absent`: by the control side, for a rank that may not look for long. False if it broke.
    virtual bool tend(bool /*absent*/) { return true; }
    bool tended() const { return tended_; }
    // It was given up because nothing ever came by it.
    virtual bool mute() const { return false; }
    // Everything written has arrived, or will without us.
    virtual bool settled() const { return true; }
    // Whether somebody waits for fd() to be readable, or poll() is called without being asked.
    virtual void waited_for(bool) {}

  protected:
    // Epoch of this side and of the peer, for the headers. tended: tend() must be called, and the
    // peer's leaving is told beside the link, not on it.
    StreamLink(uint64_t own_epoch, uint64_t peer_epoch, bool tended = false);

    // Takes bytes to send: how many, 0 if there is no room now, -1 if the link broke.
    virtual ssize_t send_bytes(const iovec* pieces, int count) = 0;
    // Takes all of them now or none; false also if the link broke.
    virtual bool send_whole(const void* bytes, size_t size) = 0;
    // Gives bytes received in order: how many, 0 if there are none now, -1 if the link broke or
    // was closed by the peer.
    virtual ssize_t receive_bytes(const iovec* pieces, int count) = 0;
    // The same without taking them.
    virtual ssize_t peek_bytes(void* bytes, size_t size) = 0;

    const char* wrong_ = nullptr;

  private:
    bool believe(const LinkEvents& events, const wire::FrameHeader& header);
    Poll receive_body(LinkEvents& events);
    bool parse(LinkEvents& events);
    bool begin_bulk(LinkEvents& events, const wire::FrameHeader& header);
    void finish_bulk(LinkEvents& events);
    void compact();

    static constexpr size_t buffer_size = 2 * (wire::frame_header_size + wire::max_message);

    uint32_t own_epoch_;
    uint32_t peer_epoch_;
    bool tended_;
    std::unique_ptr<uint8_t[]> buffer_;
    size_t begin_ = 0;  // unread bytes are [begin_, end_)
    size_t end_ = 0;
    wire::FrameHeader bulk_;   // the one whose body is being received
    uint8_t* body_ = nullptr;  // next byte of it; null: discard
    uint64_t body_left_ = 0;
};

}  // namespace kernet
