// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/recoveries.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <utility>

#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"

namespace ghost::plugin {

// Whoever was given input, by now or by the snapshot, is to be given again what came in between.
// Empty: it can be. nullptr: the snapshot is the one the job was restarted from.
std::string Recoveries::why_input_is_lost(const SnapshotRun* from) const {
    auto taken = input_;
    if (from != nullptr) taken.insert(from->input.begin(), from->input.end());
    for (const auto& [rank, bytes] : taken) {
        const int64_t had = input_by(from, rank);
        if (had < 0 || !job_.adapter.has_input_since(rank, static_cast<uint64_t>(had)))
            return fmt::format("rank {} was given standard input that cannot be given again", rank);
    }
    return {};
}

std::string Recoveries::why_not() const {
    if (!runs_ || !job_.adapter.job_running()) return why_no_job(job_);
    if (so_many_ >= job_.policy.recover_most)
        return fmt::format("it has gone on {} times already (ghost_recover_max)", so_many_);
    if (job_.snapshots.stopped()) return *refusal(job_);
    if (job_.adapter.guests() > 0) return "processes that it has spawned are running";
    if (relayed_) return "daemons speak through others (more than 64 nodes, or routed_radix)";
    for (const RankInfo& info : job_.adapter.ranks())
        if (const auto why = why_not_running(info)) return *why;
    return {};
}

Result<WayBack> Recoveries::way_back() const {
    return plugin::way_back(job_,
                            [this](const SnapshotRun* run) { return why_input_is_lost(run); });
}

// It has come to the same point again: the next time would be no other.
bool Recoveries::dies_again(RankId rank, const WayBack& from) {
    constexpr int64_t soon_us = 60'000'000, same_us = 1'000'000;
    const SnapshotRun* last = from.kept != nullptr ? from.kept->run.get() : nullptr;
    const int64_t taken = last != nullptr ? last->started + last->lasted : 0;
    const int64_t computed = job_.settings.now() - std::max(taken, went_on_);
    const Death before = std::exchange(last_death_, {rank, from.path, computed});
    return before.rank == rank && before.snapshot == from.path && computed < soon_us &&
           std::abs(computed - before.computed_us) < std::max(same_us, computed / 20);
}

std::optional<int64_t> Recoveries::measured_mtbf_us() const {
    constexpr int enough = 3;
    if (so_many_ < enough) return {};
    return (job_.settings.now() - since_) / so_many_;
}

Recoveries::Decision Recoveries::after(const std::string& lost, std::optional<RankId> rank,
                                       int status) {
    std::string why = why_not();
    if (!why.empty()) return {std::move(why), {}};
    const auto from = way_back();
    if (!from) return {from.error().why, {}};
    if (rank && dies_again(*rank, *from))
        return {fmt::format("rank {} has ended twice after the same time of computing", *rank), {}};
    ++so_many_;
    return {{}, {[this] { return way_back(); }, lost, status, went_on_}};
}

}  // namespace ghost::plugin
