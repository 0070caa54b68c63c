// SPDX-License-Identifier: BSD-3-Clause
// The codec of schema.hpp from and to JSON values, for those who have a value and not its text.
#pragma once

#include "base/json.hpp"
#include "base/schema.hpp"

namespace ghost::schema {

// The object, without a type.
nlohmann::json to_json(const Record& record, const void* object);
Status from_json(const Record& record, const nlohmann::json& json, void* object);

template <typename T>
nlohmann::json to_json(const T& object) {
    return to_json(T::table, &object);
}
template <typename T>
Result<T> from_json(const nlohmann::json& json) {
    T out;
    if (Status read = from_json(T::table, json, &out); !read.ok()) return read.error();
    return out;
}

}  // namespace ghost::schema
