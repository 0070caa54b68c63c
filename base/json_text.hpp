// SPDX-License-Identifier: BSD-3-Clause
// JSON that others have written. Some bytes of it can be deep enough to end whoever copies, prints
// or compares the value, which is done by recursion, or have many times their size in memory.
// No state: any thread.
#pragma once

#include <string_view>

#include "base/json.hpp"

namespace ghost {

inline constexpr int json_depth_limit = 100;
inline constexpr size_t json_value_limit = 4 << 20;

// The value; a discarded one (nlohmann's) if it is no JSON, or goes beyond these limits.
nlohmann::json parse_json(std::string_view text);

}  // namespace ghost
