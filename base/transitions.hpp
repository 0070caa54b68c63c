// What may follow a state, a bit for each: the last column of a state machine's table.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace ghost::plugin {

// Of an enum of at most 32 states.
template <typename State>
constexpr uint32_t to(std::initializer_list<State> next) {
    uint32_t bits = 0;
    for (State state : next) bits |= 1u << static_cast<unsigned>(state);
    return bits;
}

template <typename State>
constexpr bool has(uint32_t bits, State state) {
    return (bits >> static_cast<unsigned>(state) & 1u) != 0;
}

}  // namespace ghost::plugin
