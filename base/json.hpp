// SPDX-License-Identifier: BSD-3-Clause
// JSON values, as nlohmann::json has them; to be included instead of its own header.
//
// What every value needs is compiled once (base/json.cpp), not in each of the files that use it: a
// quarter of the time these take.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

extern template class nlohmann::basic_json<>;

namespace ghost {

// File names and arguments are bytes, JSON's strings are UTF-8: {"hex": "…"} for what is none.
nlohmann::json bytes_json(const std::string& text);
// False if it is neither.
bool bytes_from(const nlohmann::json& json, std::string& out);

}  // namespace ghost
