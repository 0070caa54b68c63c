// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/wire/channel.hpp"

#include <cstddef>
#include <cstring>
#include <sodium.h>

namespace kernet::wire {

namespace {

Mac mac_of(const ChannelHello& hello, const ChannelHello* first, const HandshakeKey& key) {
    uint8_t said[2 * sizeof hello];
    size_t size = offsetof(ChannelHello, mac);
    std::memcpy(said, &hello, size);
    if (first) {
        std::memcpy(said + size, first, sizeof *first);
        size += sizeof *first;
    }
    return key.mac(said, size);
}

}  // namespace

void seal(ChannelHello& hello, const ChannelHello* first, const HandshakeKey& key) {
    hello.mac = mac_of(hello, first, key);
}

const char* check(const ChannelHello& hello, const ChannelHello* first, const HandshakeKey& key) {
    if (hello.magic != channel_magic) return "wrong magic";
    if (hello.version != channel_version) return "wrong version";
    if (hello.answer != (first ? 1 : 0)) return "hello out of turn";
    const Mac expected = mac_of(hello, first, key);
    return sodium_memcmp(expected.data(), hello.mac.data(), expected.size()) == 0 ? nullptr
                                                                                  : "wrong secret";
}

ChannelSeal::ChannelSeal(const ChannelHello& first, const ChannelHello& answer,
                         const HandshakeKey& key, bool from_answerer) {
    uint8_t said[2 * sizeof first + 1];
    std::memcpy(said, &first, sizeof first);
    std::memcpy(said + sizeof first, &answer, sizeof answer);
    said[sizeof said - 1] = from_answerer ? 1 : 0;
    key_ = key.mac(said, sizeof said);
}

ChannelMac ChannelSeal::next(const ChannelHeader& header, const void* payload) {
    ChannelMac mac{};
    crypto_generichash_state state;
    crypto_generichash_init(&state, key_.data(), key_.size(), mac.size());
    crypto_generichash_update(&state, reinterpret_cast<const uint8_t*>(&count_), sizeof count_);
    crypto_generichash_update(&state, reinterpret_cast<const uint8_t*>(&header), sizeof header);
    crypto_generichash_update(&state, static_cast<const uint8_t*>(payload), header.length);
    crypto_generichash_final(&state, mac.data(), mac.size());
    count_++;
    return mac;
}

}  // namespace kernet::wire
