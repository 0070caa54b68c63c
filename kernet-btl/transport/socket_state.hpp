// The states of a KerNet socket, whether it is a process's end of its stream with another process
// (socket.hpp) or a numbered socket of a stream in the directory (directory_entry.hpp).
//
//   free ─attach─► attached ─suspend─► suspended      (RR-4987, 3.2: taken from the stream,
//                     ▲  └──unattach─┐   │  │          suspended and woken any number of
//                     └───wakeup─────┼───┘  │          times, given back for good)
//                                unattached ◄┘
#pragma once

#include <cstdint>

namespace kernet {

enum class SocketState : uint8_t { free, attached, suspended, unattached };

const char* state_name(SocketState state);
// The one table of transitions.
bool may_change(SocketState from, SocketState to);

}  // namespace kernet
