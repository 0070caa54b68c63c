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

  private:
    ssize_t send_bytes(const iovec* pieces, int count) override;
    bool send_whole(const void* bytes, size_t size) override;
    ssize_t receive_bytes(const iovec* pieces, int count) override;
    ssize_t peek_bytes(void* bytes, size_t size) override;
    void comes(uint64_t size) override;

    Fd fd_;
    int64_t dead_after_us_;
    bool waited_for_ = true;
    bool long_ = false;  // what came last of what does not come in one piece
};

}  // namespace kernet
