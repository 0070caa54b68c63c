// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/interface/messenger.hpp"

#include <fmt/format.h>

namespace ghost::plugin {

std::string DaemonInbox::deliver(NodeId from, std::string_view packet) {
    auto reader = readers_.find(from);
    if (reader == readers_.end())
        reader = readers_.try_emplace(from, between_daemons, fmt::format("daemon {}", from)).first;
    std::string answer;
    const auto message = reader->second.read(packet, answer);
    if (!message) return answer;
    const auto handlers = handlers_;  // one of them may stop us
    for (const auto& handler : handlers) handler(from, *message);
    return answer;
}

}  // namespace ghost::plugin
