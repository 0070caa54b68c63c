// SPDX-License-Identifier: BSD-3-Clause
// Link `ofi`: packets as messages of a connected libfabric endpoint (FI_EP_MSG), by provider `tcp`
// or the one $FI_PROVIDER names. libfabric is loaded when the link is first asked for, not before:
// it brings libraries of its own and takes half a second to look at what there is.
#pragma once

#include <memory>

#include "base/fd.hpp"
#include "kernet-btl/link/packet_driver.hpp"

namespace kernet {

// Whether libfabric and a provider are here; loads it. Code::unsupported.
Status ofi_usable();
// An end beside the connected TCP socket `beside`: between the same two addresses, at a port of its
// own. Nothing of it is left open when it is destroyed. Code::unsupported, Code::io.
Result<std::unique_ptr<PacketDriver>> make_ofi(const ghost::Fd& beside);

}  // namespace kernet
