// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/liveness.hpp"

#include <algorithm>

#include "base/log.hpp"

namespace ghost::plugin {

Liveness::Liveness(CoordinatorRuntime& adapter, const CoordinatorSettings& settings,
                   std::function<bool(NodeId)> hosts, std::function<void(NodeId)> given_up)
    : adapter_(adapter),
      settings_(settings),
      hosts_(std::move(hosts)),
      given_up_(std::move(given_up)) {}

void Liveness::start() {
    running_ = true;
    timer_ = adapter_.after(settings_.ping_us, [this] { tick(); });
}

void Liveness::stop() {
    if (running_) adapter_.cancel(timer_);
    running_ = false;
}

void Liveness::tick() {
    timer_ = adapter_.after(settings_.ping_us, [this] { tick(); });
    if (!launched_ && !adapter_.job_running()) return;
    launched_ = true;
    for (NodeId id : live_nodes()) check(id, nodes_[id]);
    send_pings(false);
    for (NodeId id : live_nodes()) ++nodes_[id].missed;
}

// Counts pings, not time: a stopped and continued mpirun must not think everyone else is dead.
void Liveness::check(NodeId id, Node& node) {
    if (id == adapter_.self() || !is_silent(id)) return;
    if (!hosts_(id)) {
        return give_up(id, true);
    }
    if (!node.reported) {
        node.reported = true;
        log::error("node {} has not answered for {} s and hosts ranks: the job waits for it",
                   name_of(id), settings_.silent_us / 1'000'000);
    }
}

void Liveness::give_up(NodeId node, bool tell_adapter) {
    if (!gone_.insert(node).second) return;
    log::error("node {} cannot be reached and hosts no rank: given up", name_of(node));
    if (tell_adapter) {
        adapter_.tell(node, AskLeave{});  // if it only stands still, it ends when it goes on
        adapter_.give_up_node(node);
    }
    given_up_(node);
}

void Liveness::send_pings(bool look) {
    ++last_ping_;
    for (NodeId id : live_nodes()) adapter_.tell(id, Ping{last_ping_, look});
}

uint64_t Liveness::ping_now(bool look) {
    send_pings(look);
    return last_ping_;
}

std::string Liveness::standing_of(RankId rank) const {
    for (const auto& [id, node] : nodes_)
        for (const RankStanding& one : node.still)
            if (one.rank == rank) return one.state;
    return {};
}

void Liveness::pong(NodeId from, const Pong& message) {
    Node& node = nodes_[from];
    const uint64_t n = message.n;
    if (n > last_ping_) return;
    node.answered = std::max(node.answered, n);
    node.missed = 0;
    if (message.looked) node.still = message.still;
    if (std::exchange(node.reported, false)) log::warning("node {} answers again", name_of(from));
}

bool Liveness::answered(uint64_t n) const {
    return first_silent(n).empty();
}

std::string Liveness::first_silent(uint64_t n) const {
    for (NodeId id : live_nodes()) {
        auto it = nodes_.find(id);
        if (it == nodes_.end() || it->second.answered < n) return name_of(id);
    }
    return {};
}

std::vector<NodeId> Liveness::live_nodes() const {
    std::vector<NodeId> out;
    for (const NodeInfo& node : adapter_.nodes()) {
        if (node.alive && !gone_.contains(node.id)) out.push_back(node.id);
    }
    return out;
}

DaemonSet Liveness::tree() const {
    DaemonSet out;
    NodeId next = 0;
    auto live = live_nodes();
    std::ranges::sort(live);
    for (NodeId id : live) {
        for (; next < id; ++next) out.without.push_back(next);
        next = id + 1;
    }
    out.daemons = next;
    return out;
}

bool Liveness::alive(NodeId node) const {
    auto live = live_nodes();
    return std::ranges::find(live, node) != live.end();
}

bool Liveness::is_silent(NodeId node) const {
    const auto it = nodes_.find(node);
    return it != nodes_.end() && it->second.missed * settings_.ping_us >= settings_.silent_us;
}

std::string Liveness::name_of(NodeId node) const {
    for (const NodeInfo& info : adapter_.nodes()) {
        if (info.id == node && !info.name.empty()) return info.name;
    }
    return fmt::format("number {}", node);
}

}  // namespace ghost::plugin
