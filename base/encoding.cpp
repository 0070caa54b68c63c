// SPDX-License-Identifier: BSD-3-Clause
#include "base/encoding.hpp"

#include <array>
#include <cstdint>

namespace ghost {
namespace {

constexpr std::string_view digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t no_digit = 64;
constexpr std::string_view hex_digits = "0123456789abcdef";

constexpr auto value_of = [] {
    std::array<uint8_t, 256> out{};
    out.fill(no_digit);
    for (size_t i = 0; i < digits.size(); ++i)
        out[static_cast<uint8_t>(digits[i])] = static_cast<uint8_t>(i);
    return out;
}();

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

std::string encode_hex(std::string_view bytes) {
    std::string out;
    out.reserve(2 * bytes.size());
    for (const unsigned char byte : bytes) {
        out += hex_digits[byte >> 4];
        out += hex_digits[byte & 15];
    }
    return out;
}

std::optional<std::string> decode_hex(std::string_view text) {
    if (text.size() % 2 != 0) return std::nullopt;
    std::string out;
    out.reserve(text.size() / 2);
    for (size_t i = 0; i < text.size(); i += 2) {
        const int high = hex_value(text[i]), low = hex_value(text[i + 1]);
        if (high < 0 || low < 0) return std::nullopt;
        out += static_cast<char>(high << 4 | low);
    }
    return out;
}

std::string encode_base64(std::string_view bytes) {
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (size_t i = 0; i < bytes.size(); i += 3) {
        const size_t some = bytes.size() - i < 3 ? bytes.size() - i : 3;
        uint32_t group = 0;
        for (size_t k = 0; k < 3; ++k)
            group = group << 8 | (k < some ? static_cast<uint8_t>(bytes[i + k]) : 0U);
        for (size_t k = 0; k < 4; ++k) out += k <= some ? digits[group >> (18 - 6 * k) & 63] : '=';
    }
    return out;
}

std::optional<std::string> decode_base64(std::string_view text) {
    if (text.size() % 4 != 0) return std::nullopt;
    std::string out;
    out.reserve(text.size() / 4 * 3);
    for (size_t i = 0; i < text.size(); i += 4) {
        size_t some = 4;  // digits of this group; only the last one has fewer
        while (i + 4 == text.size() && some > 2 && text[i + some - 1] == '=') --some;
        uint32_t group = 0;
        for (size_t k = 0; k < 4; ++k) {
            const uint8_t digit = k < some ? value_of[static_cast<uint8_t>(text[i + k])] : 0;
            if (digit == no_digit) return std::nullopt;
            group = group << 6 | digit;
        }
        for (size_t k = 0; k + 1 < some; ++k) out += static_cast<char>(group >> (16 - 8 * k) & 255);
    }
    return out;
}

}  // namespace ghost
