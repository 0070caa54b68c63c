// SPDX-License-Identifier: BSD-3-Clause
#include "base/json.hpp"

#include "base/encoding.hpp"

template class nlohmann::basic_json<>;

namespace ghost {

using Json = nlohmann::json;

Json bytes_json(const std::string& text) {
    const Json json(text);
    const bool utf8 = json.dump(-1, ' ', false, Json::error_handler_t::replace) ==
                      json.dump(-1, ' ', false, Json::error_handler_t::ignore);
    return utf8 ? json : Json{{"hex", encode_hex(text)}};
}

bool bytes_from(const Json& json, std::string& out) {
    if (json.is_string()) {
        out = json.get_ref<const std::string&>();
        return true;
    }
    const bool one = json.is_object() && json.size() == 1 && json.begin().key() == "hex" &&
                     json.begin()->is_string();
    auto bytes = one ? decode_hex(json.begin()->get_ref<const std::string&>()) : std::nullopt;
    if (!bytes) return false;
    out = std::move(*bytes);
    return true;
}

}  // namespace ghost
