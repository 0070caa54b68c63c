// SPDX-License-Identifier: BSD-3-Clause
#include "base/json_text.hpp"

namespace ghost {
namespace {

// By brackets and commas outside of strings; of what is no JSON it says nothing.
bool is_bounded(std::string_view text) {
    int depth = 0;
    size_t values = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.size(); i++) {
        const char c = text[i];
        if (quoted) {
            if (c == '\\') i++;
            if (c == '"') quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            if (++depth > json_depth_limit || ++values > json_value_limit) return false;
        } else if (c == ']' || c == '}') {
            depth--;
        } else if (c == ',' && ++values > json_value_limit) {
            return false;
        }
    }
    return true;
}

}  // namespace

nlohmann::json parse_json(std::string_view text) {
    if (!is_bounded(text)) return nlohmann::json(nlohmann::json::value_t::discarded);
    return nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
}

}  // namespace ghost
