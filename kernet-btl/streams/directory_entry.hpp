// SPDX-License-Identifier: BSD-3-Clause
// What the directory knows of one stream, and the one function that changes it (RR-4987, 3.1, 3.2).
//
// Plain data and pure functions: no I/O, no clock. The managers replicate entries (directory.hpp),
// and the processes acting on a stream get each new version: the sockets' places in it are their
// location map.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "kernet-btl/transport/location.hpp"
#include "kernet-btl/transport/socket_state.hpp"

namespace kernet {

using StreamId = uint64_t;  // random, never 0, never used again

enum class StreamType : uint8_t {
    direct,  // one to one
    fifo,    // several readers and writers; each message goes to one reader, the oldest first
    lifo,    // the same, the newest first
};

// Who may do what with a socket of a FIFO or LIFO stream; sockets of DIRECT streams do both.
inline constexpr uint8_t role_reader = 1, role_writer = 2;

// The version of an entry. `term` is unique to the manager that writes and grows whenever another
// takes over, `change` counts its changes.
struct Version {
    uint64_t term = 0;
    uint64_t change = 0;
    auto operator<=>(const Version&) const = default;
};

// How far a reader that is gone or suspended had got with one writer, in that incarnation.
struct Farewell {
    uint32_t incarnation = 0;
    uint64_t count = 0;
    bool operator==(const Farewell&) const = default;
};
using Farewells = std::map<uint16_t, Farewell>;  // by the writer's socket number

struct SocketEntry {
    SocketState state = SocketState::free;
    uint8_t role = role_reader | role_writer;
    bool lost = false;         // unattached because its process or node is gone
    uint32_t incarnation = 0;  // grows with every attach and wakeup
    uint64_t key = 0;          // suspended: what whoever wakes it must show
    Location where;            // attached; `node` is the manager's number, `rank` the process's
    Farewells farewells;
    bool operator==(const SocketEntry&) const = default;
};

// A request that was carried out, so that it is not carried out again.
struct Answered {
    std::string request;
    uint16_t socket = 0;
    uint64_t key = 0;
    bool operator==(const Answered&) const = default;
};

struct Entry {
    StreamId id = 0;
    StreamType type = StreamType::direct;
    bool grows = false;      // attach makes a socket when none is free
    bool destroyed = false;  // kept so that no older copy comes back
    int creator = -1;        // its node
    std::string class_name;
    std::string filters;
    Version version;
    std::vector<SocketEntry> sockets;
    std::deque<Answered> answered;  // the last ones

    size_t connected() const;  // sockets attached now
    // Every socket has been attached and none is away: the stream is ready to be used.
    bool ready() const;
    bool operator==(const Entry&) const = default;
};

inline constexpr size_t max_sockets = 256;  // of one stream

enum class Operation : uint8_t {
    create,
    attach,
    suspend,
    wakeup,
    unattach,
    move,       // the process is elsewhere, with all its sockets
    lost,       // one socket's process is gone
    node_left,  // all sockets of a node
    destroy,
    look,  // changes nothing
};
const char* operation_name(Operation operation);

// One request to the directory. Which fields count depends on the operation.
struct Change {
    Operation operation = Operation::look;
    StreamId id = 0;
    uint16_t socket = 0;
    uint32_t incarnation = 0;  // of the socket, as the requester knows it
    uint64_t key = 0;          // suspend: the new one; wakeup: the one that was given
    int node = -1;             // node_left
    uint8_t role = role_reader | role_writer;
    Location where;                        // attach, wakeup, move; create: .node
    Farewells farewells;                   // suspend, unattach
    StreamType type = StreamType::direct;  // create
    uint16_t sockets = 0;                  // create; 0: grows
    std::string class_name, filters;       // create
};

// Carries the change out; `socket` becomes the number of the socket concerned. Nothing is changed
// on an error: not_found (no such stream or socket), refused (no socket free, wrong state or key),
// invalid. The version is the caller's to set.
Status apply(Entry& entry, const Change& change, uint16_t& socket);

}  // namespace kernet
