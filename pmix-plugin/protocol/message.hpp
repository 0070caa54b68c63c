// SPDX-License-Identifier: BSD-3-Clause
// Reading control messages whose form is not trusted: a missing field or one of another type reads
// as the default; nothing here throws.
#pragma once

#include <cstdint>
#include <string>

#include "base/control_socket.hpp"

namespace ghost::plugin {

inline const Json* field(const Json& m, const char* key) {
    if (!m.is_object()) return nullptr;
    auto it = m.find(key);
    return it == m.end() ? nullptr : &*it;
}

// A non-negative integer.
inline uint64_t number(const Json& m, const char* key, uint64_t other = 0) {
    const Json* f = field(m, key);
    if (f == nullptr || !f->is_number_integer()) return other;
    if (!f->is_number_unsigned() && f->get<int64_t>() < 0) return other;
    return f->get<uint64_t>();
}

inline bool has_number(const Json& m, const char* key) {
    return number(m, key, UINT64_MAX) != UINT64_MAX;
}

inline int64_t signed_number(const Json& m, const char* key, int64_t other = 0) {
    const Json* f = field(m, key);
    return f != nullptr && f->is_number_integer() ? f->get<int64_t>() : other;
}

inline std::string text(const Json& m, const char* key, std::string other = {}) {
    const Json* f = field(m, key);
    return f != nullptr && f->is_string() ? f->get<std::string>() : std::move(other);
}

inline bool flag(const Json& m, const char* key, bool other = false) {
    const Json* f = field(m, key);
    return f != nullptr && f->is_boolean() ? f->get<bool>() : other;
}

}  // namespace ghost::plugin
