// SPDX-License-Identifier: BSD-3-Clause
// Control messages as JSON values, for tests that say what no struct can.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "base/schema.hpp"

namespace ghost {

inline Status send_json(const ControlSocket& socket, const Json& body,
                        const std::vector<int>& fds = {}) {
    return socket.send_text(body.dump(-1, ' ', false, Json::error_handler_t::replace), fds);
}

inline Json body_of(const ControlMessage& message) {
    return Json::parse(message.text, nullptr, false);
}

// What it is among the messages of a family; nothing if it is none of them.
template <typename Type>
std::optional<Type> type_of(const schema::Family& family, const Json& body) {
    const auto one =
        std::ranges::find(family.messages, body.value("t", ""), &schema::Message::name);
    if (one == family.messages.end()) return std::nullopt;
    return static_cast<Type>(one->index);
}

}  // namespace ghost
