// SPDX-License-Identifier: BSD-3-Clause
// What a rank's agent and its node's agent say to each other (docs/PROTOCOL.md, "R → N").
#pragma once

#include "kernet-btl/transport/location.hpp"

namespace kernet {

// The rank's library and its daemon are of one installation; another build is refused.
inline constexpr uint32_t agent_protocol = 1;

// --- the rank to the node agent ---

enum class FromRank : uint8_t { hello, gated, ungated, attached, bye, locate, secret };
extern const ghost::schema::Family from_rank;

enum class RankRole : uint8_t { rank };
inline constexpr const char* rank_role_names[] = {"rank"};
constexpr std::span<const char* const> names_of(RankRole) {
    return rank_role_names;
}

// Before anything else, on a connection of its own.
struct AskSecret {
    std::string job;
    static const ghost::schema::Record table;
};
struct RankHello {
    RankRole role = RankRole::rank;
    uint32_t version = agent_protocol;
    std::string job;
    uint32_t rank = 0;
    std::string secret;
    std::string life;
    uint64_t epoch = 0;
    int32_t pid = 0;
    int32_t tid = 0;
    Location location;
    static const ghost::schema::Record table;
};
struct GateAnswer {
    uint64_t seq = 0;
    int32_t rc = 0;
    uint32_t tag = 0;
    bool busy = false;
    std::optional<std::string> why;
    static const ghost::schema::Record table;
};
struct UngateAnswer {
    uint64_t seq = 0;
    static const ghost::schema::Record table;
};
struct RankAttached {
    uint64_t seq = 0;
    int32_t rc = 0;
    std::string error;
    Location location;
    static const ghost::schema::Record table;
};
struct RankBye {
    static const ghost::schema::Record table;
};
struct Locate {
    uint32_t peer = 0;
    static const ghost::schema::Record table;
};

// --- the node agent to the rank ---

enum class ToRank : uint8_t { welcome, gate, ungate, close, location, error, secret };
extern const ghost::schema::Family to_rank;

// How the rank came to where it is.
enum class Arrival : uint8_t { started, resumed, restored };
inline constexpr const char* arrival_names[] = {"started", "resumed", "restored"};
constexpr std::span<const char* const> names_of(Arrival) {
    return arrival_names;
}

struct TellSecret {
    std::string secret;
    static const ghost::schema::Record table;
};
struct RankWelcome {
    int32_t node = -1;
    std::string node_name;
    std::string life;
    uint64_t epoch = 0;
    Arrival state = Arrival::started;
    uint64_t seq = 0;
    std::string uri;
    bool resend = false;
    std::vector<Location> peers;
    static const ghost::schema::Record table;
};
struct GateOrder {
    uint64_t seq = 0;
    static const ghost::schema::Record table;
};
struct UngateOrder {
    uint64_t seq = 0;
    static const ghost::schema::Record table;
};
struct CloseOrder {
    uint64_t seq = 0;
    static const ghost::schema::Record table;
};

}  // namespace kernet
