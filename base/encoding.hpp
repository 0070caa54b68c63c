// SPDX-License-Identifier: BSD-3-Clause
// Bytes as text: base64 of RFC 4648, section 4.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ghost {

std::string encode_base64(std::string_view bytes);
// Nothing if it is none: only whole groups of four, padded.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace ghost
