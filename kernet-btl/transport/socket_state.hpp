// SPDX-License-Identifier: BSD-3-Clause
// The states of a KerNet socket, whether it is a process's end of its stream with another process
// (socket.hpp) or a numbered socket of a stream in the directory (directory_entry.hpp).
//
//   free ─attach─► attached ─suspend─► suspended      (RR-4987, 3.2: taken from the stream,
//                     ▲  └──unattach─┐   │  │          suspended and woken any number of
//                     └───wakeup─────┼───┘  │          times, given back for good)
//                                unattached ◄┘
#pragma once

#include "base/state_machine.hpp"

namespace kernet {

enum class SocketState : uint8_t { free, attached, suspended, unattached };

struct SocketStateRow {
    SocketState state;
    const char* name;
    uint32_t next;
};

using ghost::to;
constexpr ghost::StateTable socket_states(std::to_array<SocketStateRow>({
    {SocketState::free, "free", to({SocketState::attached, SocketState::unattached})},
    {SocketState::attached, "attached", to({SocketState::suspended, SocketState::unattached})},
    {SocketState::suspended, "suspended", to({SocketState::attached, SocketState::unattached})},
    {SocketState::unattached, "unattached", 0},
}));

}  // namespace kernet
