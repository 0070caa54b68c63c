// SPDX-License-Identifier: BSD-3-Clause
// The handle of a suspended socket: all of its state, for whoever wakes it up (RR-4987, 3.2).
//
// CBOR behind a magic, with a MAC of the cluster's secret behind it (docs/KERNET.md, "The handle").
// Pure functions.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "base/json_member.hpp"
#include "kernet-btl/streams/directory_entry.hpp"

namespace kernet {

using ghost::Result;

struct Handle {
    StreamId stream = 0;
    uint16_t socket = 0;
    uint64_t key = 0;                              // of the suspend it belongs to
    bool bytes = false;                            // byte mode
    nlohmann::json state;                          // StreamSocket::save()
    std::optional<nlohmann::json::binary_t> rest;  // byte mode: of a message half taken
};

// Code::invalid if the secret is none (64 hex digits).
Result<std::string> seal_handle(const Handle& handle, const std::string& cluster,
                                const std::string& secret);
// Code::corrupt if it is none, is damaged, or is another cluster's. What `state` says is for
// StreamSocket::restore() to judge.
Result<Handle> open_handle(const std::string& sealed, const std::string& cluster,
                           const std::string& secret);

using ghost::read_whole;

}  // namespace kernet
