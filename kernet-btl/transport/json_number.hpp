// SPDX-License-Identifier: BSD-3-Clause
// Numbers out of JSON that others have written. nlohmann's get<>() cuts what does not fit, and what
// a fraction out of range becomes is undefined; so whoever reads a message asks here.
#pragma once

#include <cstdint>
#include <limits>

#include "base/json.hpp"

namespace kernet {

// The whole number from 0 to `most` that the value is. False: it is none, and `out` as before.
template <typename T>
bool read_whole(const nlohmann::json& value, T& out,
                uint64_t most = static_cast<uint64_t>(std::numeric_limits<T>::max())) {
    if (!value.is_number_integer()) return false;
    if (!value.is_number_unsigned() && value.get<int64_t>() < 0) return false;
    const auto number = value.get<uint64_t>();
    if (number > most) return false;
    out = static_cast<T>(number);
    return true;
}

// The number of a manager or daemon, or -1 for none.
inline bool read_node(const nlohmann::json& value, int& out) {
    if (value.is_number_integer() && !value.is_number_unsigned() && value.get<int64_t>() == -1) {
        out = -1;
        return true;
    }
    return read_whole(value, out);
}

}  // namespace kernet
