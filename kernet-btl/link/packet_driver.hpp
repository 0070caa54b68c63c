// SPDX-License-Identifier: BSD-3-Clause
// What moves packets between two processes, and may lose, repeat or reorder them: the narrow
// interface below PacketLink (reliable.hpp). One driver object is one end of one link.
//
// Made and connected by the control side, afterwards used by the data side only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.hpp"
#include "kernet-btl/wire/handshake.hpp"

namespace kernet {

using ghost::Result;
using ghost::Status;

using wire::LinkAddress;

struct PacketView {
    uint8_t* data = nullptr;
    size_t size = 0;
};

class PacketDriver {
  public:
    virtual ~PacketDriver() = default;

    virtual const char* name() const = 0;
    // How the other end reaches this one; valid as soon as it is made.
    virtual LinkAddress address() const = 0;
    // To the other end. `token` is what the packets we are to get carry (PacketHeader::token):
    // a driver that hears everybody may choose by it. Code::corrupt if the address is no address,
    // peer_lost if that end is gone again, which says nothing of the link.
    virtual Status connect(const LinkAddress& peer, uint64_t token) = 0;

    // Largest packet, bytes, our header included: that of the lesser end. Valid after connect().
    virtual size_t max_packet() const = 0;
    // Bytes the system keeps for us while we do not look.
    virtual size_t receive_room() const = 0;
    // Sends packets, in this order if the driver keeps order: how many it took, -1 if the link is
    // broken. What is lost on the way counts as taken.
    virtual int send(const PacketView* packets, int count) = 0;
    // Gives packets that have come, at most so many: 0 if there are none now, -1 if the link is
    // broken. Valid until the next call.
    virtual int receive(PacketView* packets, int most) = 0;
    // Readable when receive() has something; -1: nothing says so, it must be tried.
    virtual int fd() const = 0;
    // receive() has something that came with what it gave before, of which fd() does not tell.
    virtual bool holds() const { return false; }
};

}  // namespace kernet
