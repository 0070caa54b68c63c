// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/interface/messenger.hpp"

#include <fmt/format.h>

#include "base/log.hpp"

namespace ghost::plugin {

bool DaemonInbox::is_stranger(NodeId from, const std::string& life) {
    const std::string own = own_life_();
    if (life.empty() || own.empty() || life == own) return false;
    if (strangers_.insert(from).second)
        log::warning("daemon {} of another life of the job is heard: what it says is dropped",
                     from);
    return true;
}

std::string DaemonInbox::deliver(NodeId from, const std::string& life, std::string_view packet) {
    if (is_stranger(from, life)) return {};
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
