// SPDX-License-Identifier: BSD-3-Clause
// Times of day as files and people have them. No state: any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ghost {

// "2025-01-31T23:59:59.123456Z" of microseconds since 1970.
std::string utc_text(int64_t us);
// The reverse; nothing if it is not written so. The fraction may be missing, or have up to six
// digits.
std::optional<int64_t> utc_us(std::string_view text);

}  // namespace ghost
