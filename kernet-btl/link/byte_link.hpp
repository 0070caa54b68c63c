// SPDX-License-Identifier: BSD-3-Clause
// Links that carry a stream of bytes: the frames on them, whatever brings the bytes.
//
// Sending is a gather write of as many frames as wait. Receiving goes through a buffer, except for
// the body of a bulk frame, which is read straight to where the upper layer wants it. What moves
// the bytes is below: a socket (tcp.hpp) or the packets of a lossy driver (reliable.hpp). One
// thread.
#pragma once

#include <memory>
#include <new>
#include <sys/uio.h>

#include "kernet-btl/link/link.hpp"

namespace kernet {

class ByteLink : public Link {
  public:
    ssize_t write(Frame* first, size_t offset, uint64_t ack) final {
        return write_until(nullptr, first, offset, ack);
    }
    // The same with the frames before `end` only.
    ssize_t write_until(const Frame* end, Frame* first, size_t offset, uint64_t ack);
    bool write_control(wire::FrameType type, uint64_t ack) final;
    bool take_first_ack(LinkEvents& events) final;
    Poll poll(LinkEvents& events) final;
    const char* wrong() const final { return wrong_; }

    // From now on frames between those that come here may come by another link: what is too early
    // is kept (holds_early()) until the socket has those before it.
    void await_others() { awaits_ = true; }
    bool holds_early() const { return held_; }

  protected:
    // Epoch of this side and of the peer, for the headers.
    ByteLink(uint64_t own_epoch, uint64_t peer_epoch);

    // Takes bytes to send: how many, 0 if there is no room now, -1 if the link broke.
    virtual ssize_t send_bytes(const iovec* pieces, int count) = 0;
    // Takes all of them now or none; false also if the link broke.
    virtual bool send_whole(const void* bytes, size_t size) = 0;
    // Gives bytes received in order: how many, 0 if there are none now, -1 if the link broke or
    // was closed by the peer.
    virtual ssize_t receive_bytes(const iovec* pieces, int count) = 0;
    // The same without taking them.
    virtual ssize_t peek_bytes(void* bytes, size_t size) = 0;
    // A frame with so many bytes of payload has begun to come.
    virtual void comes(uint64_t /*size*/) {}
    // A message has come whole.
    virtual void came() {}

    const char* wrong_ = nullptr;

  private:
    bool believe(const LinkEvents& events, const wire::FrameHeader& header);
    bool too_early(const LinkEvents& events, const wire::FrameHeader& header) const;
    Poll receive_body(LinkEvents& events);
    bool parse(LinkEvents& events);
    bool parse_held(LinkEvents& events, Poll& result);
    bool begin_bulk(LinkEvents& events, const wire::FrameHeader& header);
    void finish_bulk(LinkEvents& events);
    void compact();

    static constexpr size_t buffer_size = 2 * (wire::frame_header_size + wire::max_message);

    uint32_t own_epoch_;
    uint32_t peer_epoch_;
    // At the beginning of a page, as what comes first lies in the kernel's (wire::max_pad).
    struct Aligned {
        static constexpr std::align_val_t how{4096};
        void operator()(uint8_t* bytes) const { ::operator delete[](bytes, how); }
    };
    std::unique_ptr<uint8_t[], Aligned> buffer_;
    size_t begin_ = 0;  // unread bytes are [begin_, end_)
    size_t end_ = 0;
    wire::FrameHeader bulk_;   // the one whose body is being received
    uint8_t* body_ = nullptr;  // next byte of it; null: discard
    uint64_t body_left_ = 0;
    bool awaits_ = false;
    bool held_ = false;  // the next frame in the buffer has to wait for one of elsewhere
};

}  // namespace kernet
