// SPDX-License-Identifier: BSD-3-Clause
// The three messages that open a link: HELLO, WELCOME, CONFIRM (docs/WIRE.md).
//
// Both sides prove they know the job's secret by MACs over everything said so far, both nonces
// included, so a recorded handshake cannot be played again. Each side says the last frame it has
// received in order, from which the other resumes.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace kernet::wire {

using ghost::Result;

inline constexpr uint32_t handshake_magic = 0x48'54'4e'4b;  // "KNTH"
inline constexpr uint16_t handshake_version = 4;

using Nonce = std::array<uint8_t, 16>;
using Mac = std::array<uint8_t, 32>;

// The job's secret out of 64 hex digits. Code::invalid otherwise.
ghost::Status read_secret(const std::string& hex, std::array<uint8_t, 32>& out);

// Both processes have the same one; made from the job's secret, number and life. Who is of another
// life cannot make it: a rank that lived on behind a cut while its job was restarted has the secret
// and number of the true one, and an epoch that is higher even.
class HandshakeKey {
  public:
    // secret_hex: 64 hex digits. Code::invalid otherwise.
    static Result<HandshakeKey> make(const std::string& secret_hex, const std::string& job,
                                     const std::string& life = {});
    Mac mac(const void* bytes, size_t size) const;

  private:
    std::array<uint8_t, 32> key_{};
};

// What the bytes mean is the business of the link. Nothing but zeros behind them.
struct LinkAddress {
    uint16_t most = 0;  // largest packet this end can send or take, bytes
    uint8_t size = 0;   // of the bytes that follow
    std::array<uint8_t, 61> bytes{};
};
static_assert(sizeof(LinkAddress) == 64);

// nullptr, or what is wrong with it (static text).
const char* check(const LinkAddress& address);

enum class LinkKind : uint8_t {
    shm = 1,
    tcp = 2,
    udp = 3,
    netdevice = 4,
    ofi = 5,
    loop = 6,
    pair = 7,       // udp, and the connection itself
    framepair = 8,  // netdevice, and the connection itself
};

// What a connection is made for.
enum class Purpose : uint8_t {
    link = 0,
    trial = 1,  // to measure that kind of link (wire/trial.hpp); no link comes of it
};

// Of packets, beside the connection the handshake goes over.
inline constexpr bool beside(LinkKind kind) {
    return kind != LinkKind::shm && kind != LinkKind::tcp;
}

// In use together with the connection: what is small goes in packets, the rest by it.
inline constexpr bool paired(LinkKind kind) {
    return kind == LinkKind::pair || kind == LinkKind::framepair;
}

enum class Verdict : uint8_t {
    accept = 0,
    stale_epoch = 1,       // the acceptor knows a later placement of the initiator
    stale_generation = 2,  // the acceptor has or makes a later link; `generation` says which
    crossing = 3,          // the acceptor's own attempt goes on instead; a trial: later
    refused = 4,           // not now (finalizing, or this kind of link is off)
    other_filters = 5,     // the acceptor's streams have other filters
};

#pragma pack(push, 1)
struct Hello {
    uint32_t magic = handshake_magic;
    uint16_t version = handshake_version;
    LinkKind kind = LinkKind::tcp;
    Purpose purpose = Purpose::link;
    uint32_t from = 0;        // initiator's rank
    uint32_t to = 0;          // acceptor's rank
    uint64_t epoch = 0;       // initiator's placement
    uint64_t generation = 0;  // number of the link between the two; the higher one wins
    uint64_t last_seen = 0;   // last frame received in order from the acceptor
    uint64_t filters = 0;     // digest of what every message goes through; 0: nothing
    LinkAddress link{};       // kinds beside the connection: of the initiator's end
    Nonce nonce{};
    Mac mac{};  // over all fields before
};

struct Welcome {
    uint32_t magic = handshake_magic;
    uint16_t version = handshake_version;
    Verdict verdict = Verdict::accept;
    LinkKind kind = LinkKind::tcp;  // that asked for, or tcp if this side cannot
    uint64_t epoch = 0;
    uint64_t generation = 0;
    uint64_t last_seen = 0;
    uint64_t filters = 0;
    LinkAddress link{};  // of the acceptor's end
    Nonce nonce{};
    Mac mac{};  // over HELLO and all fields before
};

struct Confirm {
    uint32_t magic = handshake_magic;
    uint16_t version = handshake_version;
    uint16_t reserved = 0;
    Mac mac{};  // over HELLO, WELCOME and all fields before
};
#pragma pack(pop)

static_assert(sizeof(Hello) == 160 && sizeof(Welcome) == 152 && sizeof(Confirm) == 40);

Nonce random_nonce();

// What marks the packets of one direction of the link that comes of a handshake; never sent.
struct LinkMarks {
    uint64_t token = 0;
    uint64_t seed = 0;
};
// Made of HELLO and the acceptor's nonce.
LinkMarks link_marks(const Hello& hello, const Nonce& acceptors, bool from_initiator,
                     const HandshakeKey& key);

void seal(Hello& hello, const HandshakeKey& key);
void seal(Welcome& welcome, const Hello& hello, const HandshakeKey& key);
void seal(Confirm& confirm, const Hello& hello, const Welcome& welcome, const HandshakeKey& key);

// nullptr if the message is well-formed and made with the key, else what is wrong (static text).
const char* check(const Hello& hello, const HandshakeKey& key);
const char* check(const Welcome& welcome, const Hello& hello, const HandshakeKey& key);
const char* check(const Confirm& confirm, const Hello& hello, const Welcome& welcome,
                  const HandshakeKey& key);

}  // namespace kernet::wire
