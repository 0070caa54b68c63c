// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/wire/handshake.hpp"

#include <cstddef>
#include <cstring>
#include <sodium.h>

namespace kernet::wire {

namespace {

static_assert(sizeof(Mac) == crypto_generichash_BYTES);

// The bytes a MAC of each message covers; HELLO and WELCOME with their own MACs when they come
// before another message.
struct HelloPart {
    uint8_t bytes[offsetof(Hello, mac)];
};
struct WelcomePart {
    uint8_t bytes[sizeof(Hello) + offsetof(Welcome, mac)];
};
struct ConfirmPart {
    uint8_t bytes[sizeof(Hello) + sizeof(Welcome) + offsetof(Confirm, mac)];
};

Mac mac_of(const Hello& hello, const HandshakeKey& key) {
    return key.mac(&hello, sizeof(HelloPart));
}

Mac mac_of(const Welcome& welcome, const Hello& hello, const HandshakeKey& key) {
    WelcomePart part;
    std::memcpy(part.bytes, &hello, sizeof hello);
    std::memcpy(part.bytes + sizeof hello, &welcome, offsetof(Welcome, mac));
    return key.mac(part.bytes, sizeof part.bytes);
}

Mac mac_of(const Confirm& confirm, const Hello& hello, const Welcome& welcome,
           const HandshakeKey& key) {
    ConfirmPart part;
    std::memcpy(part.bytes, &hello, sizeof hello);
    std::memcpy(part.bytes + sizeof hello, &welcome, sizeof welcome);
    std::memcpy(part.bytes + sizeof hello + sizeof welcome, &confirm, offsetof(Confirm, mac));
    return key.mac(part.bytes, sizeof part.bytes);
}

struct MarksPart {
    uint8_t bytes[sizeof(Hello) + sizeof(Nonce) + 1];
};

bool same(const Mac& a, const Mac& b) {
    return sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

template <typename Message>
const char* check_form(const Message& message) {
    if (message.magic != handshake_magic) return "wrong magic";
    return message.version == handshake_version ? nullptr : "wrong version";
}

bool known(LinkKind kind) {
    return kind >= LinkKind::shm && kind <= LinkKind::framepair;
}

// The address is there exactly if the link is one that needs it.
const char* check_link(LinkKind kind, const LinkAddress& address) {
    if (!known(kind)) return "unknown kind of link";
    if (const char* wrong = check(address)) return wrong;
    return beside(kind) == (address.size > 0) ? nullptr : "kind and address do not fit";
}

}  // namespace

ghost::Status read_secret(const std::string& hex, std::array<uint8_t, 32>& out) {
    size_t got = 0;
    if (hex.size() == 2 * out.size() &&
        sodium_hex2bin(out.data(), out.size(), hex.data(), hex.size(), nullptr, &got, nullptr) ==
            0 &&
        got == out.size()) {
        return {};
    }
    return ghost::make_error(ghost::Code::invalid, "read the job's secret", {},
                             "64 hex digits expected");
}

Result<HandshakeKey> HandshakeKey::make(const std::string& secret_hex, const std::string& job,
                                        const std::string& life) {
    if (sodium_init() < 0) return ghost::make_error(ghost::Code::internal, "start libsodium");
    std::array<uint8_t, 32> secret{};
    GHOST_TRY(read_secret(secret_hex, secret));
    HandshakeKey key;
    const std::string label = "kernet handshake " + job + "/" + life;
    crypto_generichash(key.key_.data(), key.key_.size(),
                       reinterpret_cast<const uint8_t*>(label.data()), label.size(), secret.data(),
                       secret.size());
    sodium_memzero(secret.data(), secret.size());
    return key;
}

Mac HandshakeKey::mac(const void* bytes, size_t size) const {
    Mac out{};
    crypto_generichash(out.data(), out.size(), static_cast<const uint8_t*>(bytes), size,
                       key_.data(), key_.size());
    return out;
}

const char* check(const LinkAddress& address) {
    if (address.size > address.bytes.size()) return "address too long";
    for (size_t i = address.size; i < address.bytes.size(); i++) {
        if (address.bytes[i] != 0) return "bytes behind an address";
    }
    return nullptr;
}

LinkMarks link_marks(const Hello& hello, const Nonce& acceptors, bool from_initiator,
                     const HandshakeKey& key) {
    MarksPart part;
    std::memcpy(part.bytes, &hello, sizeof hello);
    std::memcpy(part.bytes + sizeof hello, acceptors.data(), acceptors.size());
    part.bytes[sizeof part.bytes - 1] = from_initiator ? 1 : 2;
    const Mac mac = key.mac(part.bytes, sizeof part.bytes);
    LinkMarks marks;
    std::memcpy(&marks.token, mac.data(), sizeof marks.token);
    std::memcpy(&marks.seed, mac.data() + sizeof marks.token, sizeof marks.seed);
    return marks;
}

Nonce random_nonce() {
    Nonce nonce;
    randombytes_buf(nonce.data(), nonce.size());
    return nonce;
}

void seal(Hello& hello, const HandshakeKey& key) {
    hello.mac = mac_of(hello, key);
}

void seal(Welcome& welcome, const Hello& hello, const HandshakeKey& key) {
    welcome.mac = mac_of(welcome, hello, key);
}

void seal(Confirm& confirm, const Hello& hello, const Welcome& welcome, const HandshakeKey& key) {
    confirm.mac = mac_of(confirm, hello, welcome, key);
}

const char* check(const Hello& hello, const HandshakeKey& key) {
    if (const char* wrong = check_form(hello)) return wrong;
    if (hello.purpose > Purpose::trial) return "unknown purpose";
    if (const char* wrong = check_link(hello.kind, hello.link)) return wrong;
    if (hello.from == hello.to) return "link to itself";
    return same(hello.mac, mac_of(hello, key)) ? nullptr : "wrong MAC";
}

const char* check(const Welcome& welcome, const Hello& hello, const HandshakeKey& key) {
    if (const char* wrong = check_form(welcome)) return wrong;
    if (welcome.verdict > Verdict::other_filters) return "unknown verdict";
    if (const char* wrong = check_link(welcome.kind, welcome.link)) return wrong;
    const bool gave_in = beside(hello.kind) && welcome.kind == LinkKind::tcp;
    if (welcome.verdict == Verdict::accept && welcome.kind != hello.kind && !gave_in) {
        return "another kind of link";
    }
    return same(welcome.mac, mac_of(welcome, hello, key)) ? nullptr : "wrong MAC";
}

const char* check(const Confirm& confirm, const Hello& hello, const Welcome& welcome,
                  const HandshakeKey& key) {
    if (const char* wrong = check_form(confirm)) return wrong;
    if (confirm.reserved != 0) return "reserved field not zero";
    return same(confirm.mac, mac_of(confirm, hello, welcome, key)) ? nullptr : "wrong MAC";
}

}  // namespace kernet::wire
