// SPDX-License-Identifier: BSD-3-Clause
// Link `udp`: packets in datagrams over a connected socket. Bursts leave in one system call that
// the kernel or the card cuts (UDP_SEGMENT), and come in one where they were put together again
// (UDP_GRO); each packet has its own header, so nothing depends on bursts staying whole.
#pragma once

#include <memory>

#include "base/fd.hpp"
#include "kernet-btl/link/packet_driver.hpp"

namespace kernet {

// An end beside the connected TCP socket `beside`: between the same two addresses, at a port of
// its own. Code::unsupported if that is no socket of the Internet, Code::io.
Result<std::unique_ptr<PacketDriver>> make_udp(const ghost::Fd& beside);

}  // namespace kernet
