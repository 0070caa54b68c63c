// SPDX-License-Identifier: BSD-3-Clause
// What goes over a connection between two managers: a handshake, then authenticated frames
// (docs/WIRE.md, "Channels").
#pragma once

#include <array>
#include <cstdint>

#include "kernet-btl/wire/handshake.hpp"

namespace kernet::wire {

inline constexpr uint32_t channel_magic = 0x43'54'4e'4b;  // "KNTC"
inline constexpr uint16_t channel_version = 1;

#pragma pack(push, 1)
struct ChannelHello {
    uint32_t magic = channel_magic;
    uint16_t version = channel_version;
    uint16_t answer = 0;  // 0: of who connected; 1: the answer
    uint32_t from = 0;
    uint32_t to = 0;
    Nonce nonce{};
    Mac mac{};  // over the fields before; in the answer also over the first hello
};

enum class ChannelKind : uint8_t {
    message = 1,
    taken = 2,    // `number` was given to whoever takes messages of its channel
    refused = 3,  // nobody took it
    alive = 4,
    leave = 5,  // the sender ends on purpose
};

struct ChannelHeader {
    uint32_t length = 0;  // payload bytes that follow, before the MAC
    ChannelKind kind = ChannelKind::alive;
    uint8_t reserved[3] = {};
    uint16_t channel = 0;
    uint16_t type = 0;
    uint64_t number = 0;
};
#pragma pack(pop)

static_assert(sizeof(ChannelHello) == 64 && sizeof(ChannelHeader) == 20);

inline constexpr size_t channel_mac_size = 16;
using ChannelMac = std::array<uint8_t, channel_mac_size>;

void seal(ChannelHello& hello, const ChannelHello* first, const HandshakeKey& key);
// nullptr if it is well-formed and made with the key, else what is wrong (static text).
const char* check(const ChannelHello& hello, const ChannelHello* first, const HandshakeKey& key);

// One direction of a connection: every frame is authenticated together with its number, so that
// none can be left out, repeated or turned round.
class ChannelSeal {
  public:
    ChannelSeal() = default;
    // from_answerer: the frames of the side that was connected to.
    ChannelSeal(const ChannelHello& first, const ChannelHello& answer, const HandshakeKey& key,
                bool from_answerer);
    // Of the next frame.
    ChannelMac next(const ChannelHeader& header, const void* payload);

  private:
    Mac key_{};
    uint64_t count_ = 0;
};

}  // namespace kernet::wire
