// SPDX-License-Identifier: BSD-3-Clause
// Link `tcp`: frames over one connected, non-blocking byte-stream socket.
#pragma once

#include "base/fd.hpp"
#include "kernet-btl/link/byte_link.hpp"

namespace kernet {

using ghost::Fd;

class TcpLink final : public ByteLink {
  public:
    // fd: connected, non-blocking and tuned. Epochs as in Link. dead_after_us: as the fd's
    // TcpTuning.
    TcpLink(Fd fd, uint64_t own_epoch, uint64_t peer_epoch, int64_t dead_after_us)
        : ByteLink(own_epoch, peer_epoch), fd_(std::move(fd)), dead_after_us_(dead_after_us) {}

    const char* name() const override { return "tcp"; }
    int fd() const override { return fd_.get(); }
    void waited_for(bool on) override;
    bool node_is_dead() const override;
    // This end has sent something, by this link or one beside it.
    void answered();

  private:
    ssize_t send_bytes(const iovec* pieces, int count) override;
    bool send_whole(const void* bytes, size_t size) override;
    ssize_t receive_bytes(const iovec* pieces, int count) override;
    ssize_t peek_bytes(void* bytes, size_t size) override;
    void comes(uint64_t size) override;
    void came() override;
    // What fits what has come: how far the kernel acknowledges by itself.
    void mark_arrivals();

    Fd fd_;
    int64_t dead_after_us_;
    bool waited_for_ = true;
    bool long_ = false;        // what came last of what does not come in one piece
    uint32_t unanswered_ = 0;  // messages that have come since this end has sent any
    bool stream_ = false;      // they come one behind the other, and none is answered
};

}  // namespace kernet
