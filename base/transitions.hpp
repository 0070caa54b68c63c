// SPDX-License-Identifier: BSD-3-Clause
// For the machines that are no StateTable yet: whether a bit of `next` is set.
#pragma once

#include "base/state_machine.hpp"

namespace ghost::plugin {

template <typename State>
constexpr bool has(uint32_t bits, State state) {
    return (bits >> static_cast<unsigned>(state) & 1u) != 0;
}

}  // namespace ghost::plugin
