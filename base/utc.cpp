// SPDX-License-Identifier: BSD-3-Clause
#include "base/utc.hpp"

#include <charconv>
#include <ctime>
#include <fmt/format.h>

namespace ghost {
namespace {

constexpr int64_t second = 1'000'000;  // us
constexpr size_t seconds_end = std::string_view("2025-01-31T23:59:59").size();
constexpr size_t most_digits = 6;  // of a fraction

// A number of just so many digits at this place.
bool read_digits(std::string_view text, size_t at, size_t count, int& out) {
    const std::string_view part = text.substr(at, count);
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), out);
    return part.size() == count && error == std::errc() && end == part.data() + count &&
           part[0] != '-';
}

// ".123456Z" or "Z".
std::optional<int64_t> fraction(std::string_view text) {
    if (text == "Z") return 0;
    if (text.size() < 3 || text.size() > most_digits + 2 || text.front() != '.' ||
        text.back() != 'Z')
        return std::nullopt;
    int value = 0;
    const size_t digits = text.size() - 2;
    if (!read_digits(text, 1, digits, value)) return std::nullopt;
    for (size_t i = digits; i < most_digits; ++i) value *= 10;
    return value;
}

}  // namespace

std::string utc_text(int64_t us) {
    const int64_t part = ((us % second) + second) % second;
    const time_t seconds = (us - part) / second;
    tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[64];
    ::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    return fmt::format("{}.{:06}Z", text, part);
}

std::optional<int64_t> utc_us(std::string_view text) {
    tm parts{};
    int year = 0, month = 0;
    const bool read =
        text.size() > seconds_end && text[4] == '-' && text[7] == '-' && text[10] == 'T' &&
        text[13] == ':' && text[16] == ':' && read_digits(text, 0, 4, year) &&
        read_digits(text, 5, 2, month) && read_digits(text, 8, 2, parts.tm_mday) &&
        read_digits(text, 11, 2, parts.tm_hour) && read_digits(text, 14, 2, parts.tm_min) &&
        read_digits(text, 17, 2, parts.tm_sec);
    if (!read || month < 1 || month > 12 || parts.tm_mday < 1 || parts.tm_mday > 31 ||
        parts.tm_hour > 23 || parts.tm_min > 59 || parts.tm_sec > 60)
        return std::nullopt;
    const auto us = fraction(text.substr(seconds_end));
    if (!us) return std::nullopt;
    parts.tm_year = year - 1900;
    parts.tm_mon = month - 1;
    return int64_t{::timegm(&parts)} * second + *us;
}

}  // namespace ghost
