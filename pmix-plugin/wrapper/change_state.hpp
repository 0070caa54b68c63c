// SPDX-License-Identifier: BSD-3-Clause
// One change of a state machine of the wrapper, held to its table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/log.hpp"

namespace ghost::plugin {

// Sets `state` to `next` if the table has that pair. False: it has not, and a bug was logged.
// `machine` and `number` name the machine in the log, "move 3"; `names` are of the states.
template <typename State, size_t N, size_t M>
bool change_state(State& state, State next, const std::pair<State, State> (&table)[N],
                  const char* const (&names)[M], const char* machine, uint64_t number) {
    const char* from = names[static_cast<size_t>(state)];
    const char* to = names[static_cast<size_t>(next)];
    for (const auto& [before, after] : table) {
        if (before != state || after != next) continue;
        log::debug("{} {}: {} -> {}", machine, number, from, to);
        state = next;
        return true;
    }
    log::error("{} {}: no way from {} to {}", machine, number, from, to);
    return false;
}

}  // namespace ghost::plugin
