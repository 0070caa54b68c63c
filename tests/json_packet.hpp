// SPDX-License-Identifier: BSD-3-Clause
// Control messages as JSON values, for tests that say what no struct can.
#pragma once

#include <string>
#include <vector>

#include "base/control_socket.hpp"

namespace ghost {

inline Status send_json(const ControlSocket& socket, const Json& body,
                        const std::vector<int>& fds = {}) {
    return socket.send_text(body.dump(-1, ' ', false, Json::error_handler_t::replace), fds);
}

inline Json body_of(const ControlMessage& message) {
    return Json::parse(message.text, nullptr, false);
}

}  // namespace ghost
