// Link `tcp`: frames over one connected, non-blocking byte-stream socket.
#pragma once

#include "base/fd.hpp"
#include "kernet-btl/link/stream_link.hpp"

namespace kernet {

using ghost::Fd;

class TcpLink final : public StreamLink {
  public:
    // fd: connected and non-blocking. Epochs as in StreamLink.
    TcpLink(Fd fd, uint64_t own_epoch, uint64_t peer_epoch)
        : StreamLink(own_epoch, peer_epoch), fd_(std::move(fd)) {}

    const char* name() const override { return "tcp"; }
    int fd() const override { return fd_.get(); }
    void waited_for(bool on) override;

  private:
    ssize_t send_bytes(const iovec* pieces, int count) override;
    bool send_whole(const void* bytes, size_t size) override;
    ssize_t receive_bytes(const iovec* pieces, int count) override;
    ssize_t peek_bytes(void* bytes, size_t size) override;

    Fd fd_;
};

}  // namespace kernet
