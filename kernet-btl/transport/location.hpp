// SPDX-License-Identifier: BSD-3-Clause
// Where a rank can be reached now: an entry of the location map (docs/PROTOCOL.md, "Locations").
//
// Plain data. A location with a lower epoch than the known one is out of date and ignored by
// whoever receives it, so that late messages about an earlier placement do no harm.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "base/schema.hpp"

namespace kernet {

using ghost::Result;
using ghost::Status;

// One TCP listener: a numeric IPv4 or IPv6 address and a port.
struct TcpAddress {
    std::string host;
    uint16_t port = 0;
    bool operator==(const TcpAddress&) const = default;
    static const ghost::schema::Record table;
};

struct Location {
    static constexpr size_t max_addresses = 16;  // of `tcp`
    uint32_t rank = 0;
    uint64_t epoch = 0;  // placement number; grows with every migration of the job
    int node = -1;       // daemon number, -1 if unknown
    std::string node_name;
    bool attached = false;        // false: suspended or moving; frames for it are kept
    std::vector<TcpAddress> tcp;  // in order of preference; may be empty while not attached
    std::string unix_name;  // JSON "unix" (that word is a macro in GNU C++): "@name" in the node's
                            // abstract name space; "" if none
    bool ended = false;     // it is no more, nothing reaches it
    bool operator==(const Location&) const = default;
    static const ghost::schema::Record table;
};

nlohmann::json to_json(const Location& location);
// Fails with Code::corrupt if a field is missing, of the wrong type or out of range (at most 16
// addresses, names of at most 255 bytes).
Result<Location> location_from_json(const nlohmann::json& json);

}  // namespace kernet
