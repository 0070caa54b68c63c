// SPDX-License-Identifier: BSD-3-Clause
// Step 0 of a move: what is refused before anyone is asked anything.
#include <fmt/format.h>

#include "pmix-plugin/coordinator/mover.hpp"

namespace ghost::plugin {

std::optional<std::string> Mover::check_rank(RankId rank) {
    auto ranks = c_.adapter.ranks();
    if (ranks.empty()) return "the job has no rank yet: try again in a moment";
    for (const RankInfo& info : ranks) {
        if (info.rank != rank) continue;
        if (!info.running) {
            return fmt::format(
                "rank {} is not running: it has ended, or has not started yet (then try again in "
                "a moment)",
                rank);
        }
        move_->from = info.node;
        move_->from_name = c_.liveness.name_of(info.node);
        return std::nullopt;
    }
    return fmt::format("there is no rank {}: the job has ranks 0 to {}", rank, ranks.size() - 1);
}

std::optional<std::string> Mover::check_target(const MoveOrder& order) {
    auto to = c_.adapter.find_node(order.to);
    if (!to) {
        std::string known;
        for (NodeId id : c_.liveness.live_nodes()) {
            known += (known.empty() ? "" : ", ") + c_.liveness.name_of(id);
        }
        return fmt::format("node {} is not part of the job, whose nodes are {}", order.to, known);
    }
    move_->to = *to;
    move_->to_name = c_.liveness.name_of(*to);
    if (move_->to == move_->from) return std::nullopt;
    if (!c_.liveness.alive(*to)) {
        return fmt::format("node {} has left the job: choose another one", order.to);
    }
    int slots = c_.adapter.slots(*to);
    int used = 0;
    for (const RankInfo& info : c_.adapter.ranks()) used += info.running && info.node == *to;
    if (slots > 0 && used >= slots && !c_.settings.oversubscribe) {
        return fmt::format(
            "node {} is full: {} of {} slots are in use (mpirun --oversubscribe, or "
            "rmaps_base_oversubscribe=1, allows more)",
            order.to, used, slots);
    }
    return std::nullopt;
}

std::optional<std::string> Mover::unsettled() const {
    if (!unsettled_) return std::nullopt;
    return fmt::format("node {} has not answered since the last move: no rank can move now",
                       c_.liveness.name_of(*unsettled_->nodes.begin()));
}

std::optional<std::string> Mover::check(const MoveOrder& order) {
    if (!order.mode.empty() && order.mode != "stop" && order.mode != "auto") {
        return fmt::format("mode {} is not available yet: use --mode stop", order.mode);
    }
    if (!c_.adapter.job_running()) {
        return "the job is not running: it has ended, or has not started yet (then try again in a "
               "moment)";
    }
    if (auto why = check_rank(order.rank)) return why;
    if (auto why = check_target(order)) return why;
    if (move_->to == move_->from) return std::nullopt;
    if (auto why = unsettled()) return why;
    if (auto why = c_.obstacle()) return why;
    if (c_.adapter.relayed()) {
        return "mpirun reaches some nodes of this job through others, and then the calls of a rank "
               "that has moved cannot be counted: start it with --mca routed_radix N, N at least "
               "the number of nodes (64 if nothing is said)";
    }
    if (c_.directory.find(order.rank) == nullptr) {
        return fmt::format(
            "rank {} cannot be moved yet: its agent has not attached (it does in MPI_Init; try "
            "again in a moment)",
            order.rank);
    }
    if (!c_.liveness.alive(move_->from)) {
        return fmt::format("node {}, where rank {} is, does not answer", move_->from_name,
                           order.rank);
    }
    return std::nullopt;
}

}  // namespace ghost::plugin
