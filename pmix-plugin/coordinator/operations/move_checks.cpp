// SPDX-License-Identifier: BSD-3-Clause
// Step 0 of a move: what is refused before anyone is asked anything.
#include <fmt/format.h>

#include "pmix-plugin/coordinator/operations/engine.hpp"
#include "pmix-plugin/coordinator/operations/move.hpp"
#include "pmix-plugin/coordinator/operations/targets.hpp"

namespace ghost::plugin {

std::optional<std::string> MoveOperation::check_rank() {
    const auto ranks = job_.adapter.ranks();
    data_.early = ranks.empty();
    if (data_.early) return "the job has no rank yet: try again in a moment";
    for (const RankInfo& info : ranks) {
        if (info.rank != data_.rank) continue;
        if (auto why = why_not_running(info)) return why;
        data_.from = info.node;
        data_.from_name = job_.liveness.name_of(info.node);
        return std::nullopt;
    }
    return fmt::format("there is no rank {}: the job has ranks 0 to {}", data_.rank,
                       ranks.size() - 1);
}

// Those of a unit go where the first of them goes.
std::optional<std::string> MoveOperation::choose() {
    data_.to_name = order_.to;
    if (!order_.to.empty()) return std::nullopt;
    if (unit_.to.empty()) {
        std::set<RankId> ranks;
        for (const auto& [rank, parts] : unit_.ranks) ranks.insert(rank);
        auto chosen = choose_target(job_, order_.among, data_.from, ranks);
        if (!chosen) return fmt::format("rank {}: {}", data_.rank, chosen.error().why);
        unit_.to = job_.liveness.name_of(*chosen);
    }
    data_.to_name = unit_.to;
    return std::nullopt;
}

std::optional<std::string> MoveOperation::check_target() {
    if (auto why = choose()) return why;
    const std::string name = data_.to_name;
    const auto to = job_.adapter.find_node(name);
    if (!to) {
        std::string known;
        for (NodeId id : job_.liveness.live_nodes()) {
            known += (known.empty() ? "" : ", ") + job_.liveness.name_of(id);
        }
        return fmt::format("node {} is not part of the job, whose nodes are {}", name, known);
    }
    data_.to = *to;
    data_.to_name = job_.liveness.name_of(*to);
    if (data_.to == data_.from) return std::nullopt;
    if (!job_.liveness.alive(*to)) {
        return fmt::format("node {} has left the job: choose another one", name);
    }
    if (job_.drained.contains(*to))
        return fmt::format("node {} is drained: choose another one", name);
    const int slots = job_.adapter.slots(*to), used = used_slots(job_, *to, {data_.rank});
    if (slots > 0 && used >= slots && !job_.settings.oversubscribe) {
        return fmt::format(
            "node {} is full: {} of {} slots are in use (mpirun --oversubscribe, or "
            "rmaps_base_oversubscribe=1, allows more)",
            name, used, slots);
    }
    return std::nullopt;
}

std::optional<std::string> MoveOperation::check() {
    if (order_.mode != "stop" && order_.mode != "live") {
        return fmt::format("mode {} is not available yet: use --mode live or --mode stop",
                           order_.mode);
    }
    if (is_live() && unit_.ranks.size() > 1) {
        data_.not_live = "it shares memory with other ranks";
        return fmt::format("it cannot move live: {} (--mode stop moves them together)",
                           data_.not_live);
    }
    const bool runs = job_.adapter.job_running();
    data_.early = !runs && !has_ended(job_);
    if (!runs) return why_no_job(job_);
    if (auto why = check_rank()) return why;
    if (auto why = check_target()) return why;
    if (data_.to == data_.from) return std::nullopt;
    if (auto why = refusal(job_)) return why;
    if (job_.adapter.relayed()) {
        return "mpirun reaches some nodes of this job through others, and then the calls of a rank "
               "that has moved cannot be counted: start it with --mca routed_radix N, N at least "
               "the number of nodes (64 if nothing is said)";
    }
    data_.early = job_.locations.find(data_.rank) == nullptr;
    if (data_.early) {
        return fmt::format("rank {} is in MPI_Init: try again in a moment", data_.rank);
    }
    if (!job_.liveness.alive(data_.from)) {
        return fmt::format("node {}, where rank {} is, does not answer", data_.from_name,
                           data_.rank);
    }
    return std::nullopt;
}

}  // namespace ghost::plugin
