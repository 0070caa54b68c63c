// SPDX-License-Identifier: BSD-3-Clause
// Simulated nodes that join the job while it runs.
#include <utility>

#include "pmix-plugin/runtime/sim/cluster.hpp"

namespace ghost::plugin::sim {

void Cluster::add_daemon(const std::string& name, int slots) {
    const NodeId id = size();
    names_.push_back(name);
    daemon_slots_.push_back(slots);
    daemons_.push_back(std::make_unique<Daemon>(*this, id));
    agents_.push_back(std::make_unique<NodeAgent>(*daemons_.back(), node_settings_));
}

Result<NewNode> Daemon::start_daemon(const std::string& host, int slots,
                                     std::function<void(const Status&)> runs) {
    if (!c_.starts_.empty()) c_.violate("two daemons are started at the same time");
    const NodeId id = c_.size();
    c_.add_daemon(host, slots);
    c_.outside.insert(id);
    c_.starts_[id] = std::move(runs);
    if (c_.chance.start != Start::hangs)
        c_.at(c_.now + c_.chance.start_us, Cluster::nobody, [this, id] { c_.daemon_starts(id); });
    return NewNode{id, id, host, slots};
}

void Cluster::daemon_starts(NodeId id) {
    auto start = starts_.extract(id);
    if (!start || dead.contains(0)) return;
    if (chance.start == Start::fails) {
        given_up.insert(id);
        return start.mapped()(make_error(Code::peer_lost, "start a daemon on", names_[id]));
    }
    daemons_[id]->where_ = daemons_[0]->where_;
    outside.erase(id);
    if (chance.start != Start::is_stock)
        if (auto s = agents_[id]->start(); !s.ok()) violate(s.error().message());
    start.mapped()({});
}

void Daemon::give_up_start(NodeId node) {
    c_.starts_.erase(node);
    c_.outside.insert(node);
    c_.given_up.insert(node);
    c_.dead.insert(node);
    c_.agents_[node]->stop();
}

void Daemon::learn_node(const NewNode& node) {
    learned_.insert(node.id);
}

}  // namespace ghost::plugin::sim
