// SPDX-License-Identifier: BSD-3-Clause
// One end of a link that two processes are agreeing on (docs/WIRE.md, "Handshake"): what it has to
// say to the other end meanwhile, and the link that comes of it. The control side's thread.
#pragma once

#include <memory>

#include "base/fd.hpp"
#include "kernet-btl/link/fault.hpp"
#include "kernet-btl/link/link.hpp"
#include "kernet-btl/link/loop.hpp"
#include "kernet-btl/link/packet_driver.hpp"
#include "kernet-btl/link/reliable.hpp"
#include "kernet-btl/link/shm.hpp"

namespace kernet {

// What an end is made from.
struct LinkSite {
    ghost::Fd& connection;    // of the handshake; what goes by it takes it in the end
    LoopHub* loop = nullptr;  // of this process, if it has one
    int64_t dead_after_us = 30'000'000;
    RingGeometry ring = {};
    RingPieces pieces = {};
    FaultPlan faults = {};  // what packets are to suffer: tests
};

// What a handshake comes to.
struct LinkTerms {
    uint64_t own_epoch = 0, peer_epoch = 0;
    PacketKeys keys;  // of links with a driver()
};

class LinkEnd {
  public:
    virtual ~LinkEnd() = default;

    // What HELLO or WELCOME says of it.
    virtual LinkAddress address() const { return {}; }
    // What the other end said; as PacketDriver::connect().
    virtual Status connect(const LinkAddress& /*peer*/, uint64_t /*token*/) { return {}; }
    // The initiator's: a descriptor that goes with CONFIRM, -1 for none. It stays the end's.
    virtual Result<int> give() { return -1; }
    // The acceptor's: what came with CONFIRM. Code::corrupt: it is not to be believed.
    virtual Status take(ghost::Fd /*given*/) { return {}; }
    // What moves its packets, to be measured; null if it has none.
    virtual PacketDriver* driver() { return nullptr; }
    // Everything is agreed on. Once.
    virtual std::unique_ptr<Link> finish(const LinkTerms& terms) = 0;
};

// The makers of the table's lines: as LinkLine::make.
Result<std::unique_ptr<LinkEnd>> make_shm_end(const LinkSite& site);
Result<std::unique_ptr<LinkEnd>> make_tcp_end(const LinkSite& site);
// All goes in packets.
Result<std::unique_ptr<LinkEnd>> make_packet_end(const LinkSite& site,
                                                 Result<std::unique_ptr<PacketDriver>> driver);
// What is small does, the rest by the connection. name: static.
Result<std::unique_ptr<LinkEnd>> make_pair_end(const LinkSite& site, const char* name,
                                               Result<std::unique_ptr<PacketDriver>> driver);

}  // namespace kernet
