// How the other end of a link that is agreed on by a handshake is to be reached.
#pragma once

#include <array>
#include <cstdint>

namespace kernet::wire {

// What the bytes mean is the business of the link. Nothing but zeros behind them.
struct LinkAddress {
    uint16_t most = 0;  // largest packet this end can send or take, bytes
    uint8_t size = 0;   // of the bytes that follow
    std::array<uint8_t, 61> bytes{};
};
static_assert(sizeof(LinkAddress) == 64);

// nullptr, or what is wrong with it (static text).
const char* check(const LinkAddress& address);

}  // namespace kernet::wire
