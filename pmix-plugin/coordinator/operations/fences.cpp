// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/fences.hpp"

#include <utility>

namespace ghost::plugin {

bool Fences::hold(uint64_t seq) {
    if (closing_) return false;
    if (holders_.empty() && !runtime_.hold_fences()) return false;
    holders_.try_emplace(seq);
    return true;
}

void Fences::release(uint64_t seq) {
    auto it = holders_.find(seq);
    if (it == holders_.end() || !it->second.waited_for) return;
    it->second.decided = 0;  // a move that is lost: its votes count for nothing
    leave(it);
}

void Fences::decide(uint64_t seq, std::set<NodeId> daemons) {
    Holder& holder = holders_[seq];
    holder.decided = ++last_decision_;
    holder.unanswered = std::move(daemons);
    closing_ = true;
}

bool Fences::vote(uint64_t seq, NodeId daemon, int votes) {
    auto it = holders_.find(seq);
    if (it == holders_.end() || it->second.unanswered.erase(daemon) == 0) return false;
    it->second.votes += votes;
    if (it->second.unanswered.empty()) leave(it);
    return true;
}

void Fences::node_lost(NodeId daemon) {
    for (auto it = holders_.begin(); it != holders_.end();) {
        const auto now = it++;
        if (now->second.unanswered.erase(daemon) > 0 && now->second.unanswered.empty()) leave(now);
    }
}

std::set<NodeId> Fences::unanswered(uint64_t seq) const {
    auto it = holders_.find(seq);
    return it == holders_.end() ? std::set<NodeId>() : it->second.unanswered;
}

std::optional<NodeId> Fences::owing() const {
    for (const auto& [seq, holder] : holders_) {
        if (!holder.waited_for) return *holder.unanswered.begin();
    }
    return std::nullopt;
}

void Fences::wait_no_more(uint64_t seq) {
    if (auto it = holders_.find(seq); it != holders_.end()) it->second.waited_for = false;
}

void Fences::leave(std::map<uint64_t, Holder>::iterator holder) {
    if (holder->second.decided > settled_by_) {
        settled_by_ = holder->second.decided;
        votes_ = holder->second.votes;
    }
    holders_.erase(holder);
    closing_ = !holders_.empty();
    if (closing_) return;
    if (std::exchange(settled_by_, 0) != 0)
        runtime_.settle_fences(votes_);
    else
        runtime_.release_fences();
}

}  // namespace ghost::plugin
