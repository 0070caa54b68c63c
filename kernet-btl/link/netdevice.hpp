// SPDX-License-Identifier: BSD-3-Clause
// Link `netdevice`: packets as Ethernet frames of a type of their own, without IP (AF_PACKET).
// Both ends must be on one Ethernet, and the process must have CAP_NET_RAW. What comes is in a ring
// of 1 MiB (frame_ring.hpp), 256 KiB if small, more only where 32 of the longest frames need it.
#pragma once

#include <cstdint>
#include <memory>

#include "base/fd.hpp"
#include "kernet-btl/link/packet_driver.hpp"

namespace kernet {

// IEEE 802, local experimental Ethertype 1: nobody else's on a net of ours.
inline constexpr uint16_t netdevice_type = 0x88b5;

// Whether this process may have such sockets; Code::unsupported.
Status netdevice_usable();
// How many sockets for such frames there are in this network namespace, whoever has them; those
// that are being closed are among them.
size_t netdevice_sockets();
// An end on the interface that the connected TCP socket `beside` uses. Code::unsupported if the
// peer is not on the same net, Code::io. small: for messages of a frame or two.
Result<std::unique_ptr<PacketDriver>> make_netdevice(const ghost::Fd& beside, bool small);

}  // namespace kernet
