// SPDX-License-Identifier: BSD-3-Clause
// Members of objects that others have written, for who only shows them: nlohmann's value() and
// get() throw if one is of another kind. What is acted upon is a struct with a table (schema.hpp).
#pragma once

#include <string>
#include <type_traits>

#include "base/json.hpp"

namespace ghost {

// `otherwise` too if it is no object, and if the member is of another kind.
template <typename T>
T member(const nlohmann::json& object, const char* name, const T& otherwise) {
    const auto found = object.find(name);
    if (found == object.end()) return otherwise;
    bool is_one = true;
    if constexpr (std::is_same_v<T, bool>) {
        is_one = found->is_boolean();
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
