// SPDX-License-Identifier: BSD-3-Clause
// Recoveries in the simulated job: the adapter's part. What runtimes do of it with processes of
// their own takes a moment.
#include "pmix-plugin/runtime/sim/cluster.hpp"

namespace ghost::plugin::sim {

void Daemon::let_end(RankId rank) {
    c_.ended[rank] = true;
}

void Daemon::stop_ranks(const std::vector<NodeId>&, std::function<void(const Status&)> stopped) {
    if (id_ == 0) c_.releases += std::exchange(c_.held, 0);
    premarked_.clear();
    allowed_.clear();
    unread_.clear();
    c_.later(id_, [this, stopped = std::move(stopped)] {
        c_.end_ranks_of(id_);
        stopped({});
    });
}

Status Daemon::start_ranks(const Births& births) {
    for (const auto& tree : c_.trees_)
        if (tree->node == id_ && tree->alive) c_.violate("a rank of the life before still runs");
    life_ = births.life;
    for (const auto& [rank, node] : births.places) {
        where_[rank] = node;
        if (node == id_) c_.later(id_, [this, rank = rank] { c_.boot(rank, id_, true); });
    }
    return {};
}

void Cluster::end_ranks_of(NodeId node) {
    for (auto& w : wrappers_) {
        if (w->node != node) continue;
        w->alive = w->registered = false;
        w->ended = nullptr;
        w->control.close();
    }
    for (auto& t : trees_) {
        if (t->node == node) drop_tree(*t);
    }
}

}  // namespace ghost::plugin::sim
