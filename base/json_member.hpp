// SPDX-License-Identifier: BSD-3-Clause
// Values that others have written, for who has no struct with a table for them (schema.hpp):
// nlohmann's value() and get() throw if one is of another kind, cut a number that does not fit, and
// what they make of a fraction out of range is undefined.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "base/json.hpp"

namespace ghost {

// The whole number that the value is, of those that T has, up to `most`. False: it is none, and
// `out` as before.
template <std::integral T>
bool read_whole(const nlohmann::json& value, T& out,
                uint64_t most = static_cast<uint64_t>(std::numeric_limits<T>::max())) {
    if (!value.is_number_integer()) return false;
    const bool negative = !value.is_number_unsigned() && value.get<int64_t>() < 0;
    if (negative ? !std::in_range<T>(value.get<int64_t>()) : value.get<uint64_t>() > most)
        return false;
    out = value.get<T>();
    return true;
}
template <std::integral T>
bool read_whole(const nlohmann::json& object, const char* name, T& out) {
    const auto found = object.find(name);
    return found != object.end() && read_whole(*found, out);
}

// `otherwise` too if it is no object, and if the member is of another kind or does not fit.
template <typename T>
T member(const nlohmann::json& object, const char* name, const T& otherwise) {
    const auto found = object.find(name);
    if (found == object.end()) return otherwise;
    bool is_one = true;
    if constexpr (std::is_same_v<T, bool>) {
        is_one = found->is_boolean();
    } else if constexpr (std::integral<T>) {
        T whole = otherwise;
        return read_whole(*found, whole) ? whole : otherwise;
    } else if constexpr (std::is_arithmetic_v<T>) {
        is_one = found->is_number();
    } else if constexpr (std::is_same_v<T, std::string>) {
        is_one = found->is_string();
    }
    return is_one ? found->template get<T>() : otherwise;
}
inline std::string member(const nlohmann::json& object, const char* name, const char* otherwise) {
    return member(object, name, std::string(otherwise));
}

// The list of that name; an empty one.
inline nlohmann::json list_in(const nlohmann::json& object, const char* name) {
    auto list = member(object, name, nlohmann::json::array());
    return list.is_array() ? list : nlohmann::json::array();
}

}  // namespace ghost
