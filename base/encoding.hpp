// SPDX-License-Identifier: BSD-3-Clause
// Bytes as text: base64 and hexadecimal digits (RFC 4648, sections 4 and 8).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ghost {

std::string encode_base64(std::string_view bytes);
// Nothing if it is none: only whole groups of four, padded.
std::optional<std::string> decode_base64(std::string_view text);

// Two lower-case digits for each byte.
std::string encode_hex(std::string_view bytes);
// Nothing if it is none. Digits of either case.
std::optional<std::string> decode_hex(std::string_view text);

}  // namespace ghost
