// SPDX-License-Identifier: BSD-3-Clause
// Name and addresses of this node, and which of a peer's is the best way to it. No state.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace ghost {

// As gethostname(2) has it.
std::string host_name();

// One address of an interface that is up.
struct OwnAddress {
    std::string interface;
    std::string text;                 // numeric
    int family = 0;                   // AF_INET, AF_INET6
    std::array<uint8_t, 16> bytes{};  // network order
    int prefix = 0;                   // bits of the net behind the interface
    uint32_t mbits = 0;               // speed, as the interface says; 0: it does not
    bool loopback = false;
};

// Those of the interfaces named by `include` (interface names or CIDR nets, comma-separated), or
// with "" all but loopback, or loopback if there are no others. IPv4 first, quicker ones first.
// Code::invalid if include selects none.
Result<std::vector<OwnAddress>> own_addresses(const std::string& include);

// Orders a peer's numeric addresses, best first: those on a net that one of ours is on as well, by
// its speed; then what is reached by a route; last those that are ours too (of bridges, say, that
// are alike on every node) unless the peer is on this node. As they came among equals. Indices.
std::vector<size_t> by_quality(const std::vector<std::string>& hosts,
                               const std::vector<OwnAddress>& own, bool same_node);

}  // namespace ghost
