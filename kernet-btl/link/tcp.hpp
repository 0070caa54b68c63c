// Link `tcp`: frames over one connected, non-blocking byte-stream socket.
//
// Sending is a gather write of as many frames as wait. Receiving goes through a buffer, except for
// the body of a bulk frame, which is read straight to where the upper layer wants it. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <sys/types.h>

#include "base/fd.hpp"
#include "kernet-btl/link/frame.hpp"

namespace kernet {

using ghost::Fd;

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

class TcpLink {
  public:
    enum class Poll { idle, progress, broken };

    // fd: connected and non-blocking. epoch: of this side and of the peer, for the headers.
    TcpLink(Fd fd, uint64_t own_epoch, uint64_t peer_epoch);

    // Writes as much as the socket takes of the frames from `first` on, of which `offset` bytes
    // are already out; stamps them with `ack`. Returns the bytes written, -1 if the link broke.
    ssize_t write(Frame* first, size_t offset, uint64_t ack);
    // Sends a control frame if it can go out whole and now. Only between frames.
    bool write_control(wire::FrameType type, uint64_t ack);
    // Takes the acknowledgement every link begins with, if it has come and is the next frame, and
    // nothing else. False if the link broke.
    bool take_first_ack(LinkEvents& events);
    // Takes what has arrived, at most a few buffers full.
    Poll poll(LinkEvents& events);

    int fd() const { return fd_.get(); }
    uint32_t peer_epoch() const { return peer_epoch_; }
    // What made it break: static text, or null if the connection was lost or closed.
    const char* wrong() const { return wrong_; }

  private:
    Poll receive_body(LinkEvents& events);
    bool parse(LinkEvents& events);
    bool begin_bulk(LinkEvents& events, const wire::FrameHeader& header);
    void finish_bulk(LinkEvents& events);
    void compact();

    static constexpr size_t buffer_size = 2 * (wire::frame_header_size + wire::max_message);

    Fd fd_;
    uint32_t own_epoch_;
    uint32_t peer_epoch_;
    const char* wrong_ = nullptr;
    std::unique_ptr<uint8_t[]> buffer_;
    size_t begin_ = 0;  // unread bytes are [begin_, end_)
    size_t end_ = 0;
    wire::FrameHeader bulk_;   // the one whose body is being received
    uint8_t* body_ = nullptr;  // next byte of it; null: discard
    uint64_t body_left_ = 0;
};

}  // namespace kernet
