// SPDX-License-Identifier: BSD-3-Clause
// Link `pair`: what is small goes in packets, what is large by a connection, side by side.
//
// A message of one packet is as quick by UDP as by TCP, or quicker (docs/PERFORMANCE.md, "Streams
// and links"), everything longer slower. Frames have one row of numbers for both ways; what comes
// before its turn waits in the buffer of its way. Either way breaking is the link breaking. One
// thread.
#pragma once

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "kernet-btl/link/reliable.hpp"
#include "kernet-btl/link/tcp.hpp"

namespace kernet {

class PairLink final : public Link {
  public:
    PairLink(const char* name, std::unique_ptr<PacketLink> packets, std::unique_ptr<TcpLink> bytes);

    ssize_t write(Frame* first, size_t offset, uint64_t ack) override;
    bool write_control(wire::FrameType type, uint64_t ack) override;
    bool take_first_ack(LinkEvents& events) override { return packets_->take_first_ack(events); }
    Poll poll(LinkEvents& events) override;
    const char* wrong() const override {
        return packets_->wrong() ? packets_->wrong() : bytes_->wrong();
    }

    const char* name() const override { return name_; }
    // Of both ways; -1 if the system has no descriptor left for it.
    int fd() const override;
    bool holds() const override { return packets_->holds(); }
    bool tend(bool absent) override { return packets_->tend(absent); }
    bool tended() const override { return true; }
    bool mute() const override { return packets_->mute(); }
    bool node_is_dead() const override { return bytes_->node_is_dead(); }
    bool settled() const override { return packets_->settled(); }
    void waited_for(bool on) override;

    // Too many packets were lost: everything goes by the connection now, until there is another
    // link.
    bool lossy() const override { return lossy_; }

  private:
    bool in_packets(const Frame& frame) const {
        return !lossy_ && !full_ && frame.wire_size() <= packets_->segment();
    }
    void judge();
    Poll look(ByteLink& way, LinkEvents& events, Poll& result);

    const char* name_;
    std::unique_ptr<PacketLink> packets_;
    std::unique_ptr<TcpLink> bytes_;
    mutable ghost::Fd both_;   // epoll, made when somebody wants to wait
    bool small_now_ = false;   // what was written last went in packets
    bool large_last_ = false;  // what came last came by the connection
    bool waited_for_ = false;
    bool lossy_ = false;
    bool full_ = false;  // of what went in packets so much has not arrived that the rest goes by
                         // the connection until all of it has
    uint32_t looks_ = 0;
    ghost::LastTime looked_;
};

}  // namespace kernet
