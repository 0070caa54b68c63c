// SPDX-License-Identifier: BSD-3-Clause
// What stream managers say to each other and to the processes of their node (docs/WIRE.md,
// "Channels", "The directory"), and entries and changes as they do.
#pragma once

#include "kernet-btl/streams/directory_entry.hpp"

namespace kernet {

// --- parts: the directory's own structs, as they are sent ---

struct SentFarewell {
    uint16_t writer = 0;
    uint32_t incarnation = 0;
    uint64_t count = 0;
    static const ghost::schema::Record table;
};
struct SentSocket {
    uint8_t state = 0;
    uint8_t role = 0;
    bool lost = false;
    uint32_t incarnation = 0;
    uint64_t key = 0;
    std::vector<SentFarewell> farewells;
    std::optional<Location> where;
    static const ghost::schema::Record table;
};
struct SentAnswered {
    std::string request;
    uint16_t socket = 0;
    uint64_t key = 0;
    static const ghost::schema::Record table;
};
struct SentEntry {
    uint64_t id = 0;
    uint8_t type = 0;
    bool grows = false;
    bool destroyed = false;
    int32_t creator = -1;
    std::string class_name;
    std::string filters;
    uint64_t term = 0;
    uint64_t change = 0;
    std::vector<SentSocket> sockets;
    std::vector<SentAnswered> answered;
    static const ghost::schema::Record table;
};
struct SentChange {
    uint8_t operation = 0;
    uint64_t id = 0;
    uint16_t socket = 0;
    uint32_t incarnation = 0;
    uint64_t key = 0;
    int32_t node = -1;
    uint8_t role = 0;
    std::vector<SentFarewell> farewells;
    uint8_t type = 0;
    uint16_t sockets = 0;
    std::string class_name;
    std::string filters;
    std::optional<Location> where;
    static const ghost::schema::Record table;
};
struct SentError {
    int32_t code = 0;
    std::string tried;
    std::string object;
    std::string why;
    int32_t sys = 0;
    static const ghost::schema::Record table;
};

SentEntry sent(const Entry& entry);
SentChange sent(const Change& change);
SentError sent(const ghost::Error& error);
// What was read has been checked by its table: nothing can be wrong with it.
Entry as_meant(const SentEntry& sent);
Change as_meant(const SentChange& sent);
ghost::Error as_meant(const SentError& sent);

// --- managers to each other ---

enum class ManagerMessage : uint8_t { ask, answer, get, have, put, took, drop };
extern const ghost::schema::Family between_managers;

struct AskHome {
    std::string request;
    SentChange change;
    static const ghost::schema::Record table;
};
struct HomeAnswer {
    std::string request;
    bool ok = false;
    uint16_t socket = 0;
    int32_t code = 0;
    std::string tried;
    std::string object;
    std::string why;
    int32_t sys = 0;
    std::optional<SentEntry> entry;
    static const ghost::schema::Record table;
};
struct GetEntry {
    uint64_t id = 0;
    uint64_t nonce = 0;
    uint64_t term = 0;
    static const ghost::schema::Record table;
};
struct HaveEntry {
    uint64_t id = 0;
    uint64_t nonce = 0;
    bool ok = false;
    uint64_t fence = 0;
    std::optional<SentEntry> entry;
    static const ghost::schema::Record table;
};
struct PutEntry {
    uint64_t nonce = 0;
    SentEntry entry;
    static const ghost::schema::Record table;
};
struct TookEntry {
    uint64_t id = 0;
    uint64_t nonce = 0;
    bool ok = false;
    uint64_t fence = 0;
    static const ghost::schema::Record table;
};
struct DropEntry {
    uint64_t id = 0;
    uint64_t term = 0;
    uint64_t change = 0;
    static const ghost::schema::Record table;
};

// --- a process to the manager of its node ---

enum class ToManager : uint8_t { hello, ask, channel, send, nodes };
extern const ghost::schema::Family to_manager;

struct ProcessHello {
    uint32_t process = 0;
    static const ghost::schema::Record table;
};
struct AskManager {
    uint64_t n = 0;
    SentChange change;
    static const ghost::schema::Record table;
};
struct OpenChannel {
    uint64_t n = 0;
    uint16_t channel = 0;
    static const ghost::schema::Record table;
};
struct SendByChannel {
    uint64_t n = 0;
    std::string node;
    uint16_t channel = 0;
    uint16_t type = 0;
    std::string bytes;
    static const ghost::schema::Record table;
};
struct ListNodes {
    uint64_t n = 0;
    static const ghost::schema::Record table;
};

// --- the manager to a process of its node ---

enum class FromManager : uint8_t { welcome, answer, map, message };
extern const ghost::schema::Family from_manager;

struct ManagerWelcome {
    uint32_t process = 0;
    std::string cluster;
    int32_t node = -1;
    std::string node_name;
    std::string secret;
    std::string if_include;
    std::string filters;
    static const ghost::schema::Record table;
};
struct SentNode {
    std::string name;
    std::string state;
    static const ghost::schema::Record table;
};
struct ManagerAnswer {
    uint64_t n = 0;
    uint16_t socket = 0;
    std::optional<SentError> error;
    std::optional<SentEntry> entry;
    std::vector<SentNode> nodes;
    static const ghost::schema::Record table;
};
struct NewMap {
    SentEntry entry;
    static const ghost::schema::Record table;
};
struct ChannelArrived {
    std::string from;
    uint16_t channel = 0;
    uint16_t type = 0;
    std::string bytes;
    static const ghost::schema::Record table;
};

}  // namespace kernet
