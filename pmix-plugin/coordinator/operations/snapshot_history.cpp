// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <utility>

#include "pmix-plugin/coordinator/operations/parity.hpp"

namespace ghost::plugin {

void SnapshotHistory::add(const SnapshotRun& run, const std::string& memory) {
    last_ = std::make_shared<const SnapshotRun>(run);
    const auto add = [&](const std::string& folder, bool own, const std::vector<std::string>& old) {
        if (folder.empty()) return;
        std::erase_if(kept_, [&](const KeptSnapshot& one) {
            return one.folder == folder && std::ranges::find(old, one.run->name) != old.end();
        });
        kept_.push_front({last_, folder, own || folder == memory, run.holders, run.parity});
    };
    // What is quicker to come back from is first.
    const bool memory_last = run.folder != memory;
    if (memory_last) add(run.folder, run.node_local, run.old);
    add(run.second, run.second_local, run.old_seconds);
    if (!memory_last) add(run.folder, run.node_local, run.old);
    since_full_ = run.kind == "full" ? 0 : since_full_ + 1;
    if (run.then == "stop") stopped_by_ = run.seq;
}

bool SnapshotHistory::disk_is_due(int every) {
    if (every <= 0 || ++since_disk_ < every) return false;
    since_disk_ = 0;
    return true;
}

KeptSnapshot* SnapshotHistory::find(const std::string& path) {
    const auto found =
        std::ranges::find_if(kept_, [&](const KeptSnapshot& one) { return one.path() == path; });
    return found != kept_.end() ? &*found : nullptr;
}

uint64_t SnapshotHistory::input_needed_from(RankId rank) const {
    int64_t least = input_by(last_.get(), rank);
    for (const KeptSnapshot& one : kept_) {
        const int64_t had = input_by(one.run.get(), rank);
        if (had >= 0) least = std::min(least, had);
    }
    return least < 0 ? 0 : static_cast<uint64_t>(least);
}

void SnapshotHistory::went_back_to(const std::string& path) {
    const KeptSnapshot* there = find(path);
    if (there == nullptr) return;
    last_ = there->run;
    std::erase_if(kept_, [this](const KeptSnapshot& one) { return one.run->seq > last_->seq; });
}

void SnapshotHistory::remind(uint64_t seq, uint64_t attempt) {
    unconfirmed_ = Unconfirmed{seq, attempt + 1, 0};
    order_step(adapter_, liveness_, DaemonMessage::snap_abort, seq, attempt + 1);
    unconfirmed_->again =
        adapter_.after(settings_.abort_us, [this, seq, attempt] { remind(seq, attempt + 1); });
}

void SnapshotHistory::message(const schema::Received& m) {
    if (!unconfirmed_ || m.seq() != unconfirmed_->seq || !m.is<StepUp>()) return;
    if (m.as<StepUp>().step != ParticipantStep::aborted) return;
    log::warning("every node has said that its ranks go on");
    publish_(m.as<StepUp>().answer.locations);
    stop();
}

void SnapshotHistory::stop() {
    if (unconfirmed_) adapter_.cancel(unconfirmed_->again);
    unconfirmed_.reset();
}

namespace {

// Of a snapshot in nodes' memory: the ranks whose ghosts were lost; empty: none were.
std::string why_gone(const Job& job, const KeptSnapshot& one) {
    std::vector<RankId> ranks;
    std::set<NodeId> nodes;
    for (const auto& [rank, holders] : one.holders) {
        if (std::ranges::any_of(holders, [&](NodeId n) { return job.liveness.alive(n); })) continue;
        if (rebuild(job, one, rank, 0, 0, &nodes)) continue;
        ranks.push_back(rank);
        nodes.insert(holders.begin(), holders.end());
    }
    if (ranks.empty()) return {};
    constexpr size_t most_named = 8;
    const auto named = ranks.begin() + static_cast<long>(std::min(ranks.size(), most_named));
    std::vector<std::string> names;
    for (const NodeId node : nodes) names.push_back(job.liveness.name_of(node));
    const std::string which = fmt::format(
        "{} {}{} in snapshot {}", ranks.size() == 1 ? "rank" : "ranks",
        fmt::join(ranks.begin(), named, ", "), named == ranks.end() ? "" : ", …", one.run->name);
    const std::string where = fmt::format("{}", fmt::join(names, " and "));
    if (one.parity.empty())
        return fmt::format("the ghosts of {} were on {} only, and lost with it", which, where);
    return fmt::format(
        "the ghosts of {} were on {}, more than one node of a group for parity, and lost with it",
        which, where);
}

}  // namespace

int64_t input_by(const SnapshotRun* run, RankId rank) {
    if (run == nullptr) return 0;
    const auto found = run->input.find(rank);
    return found == run->input.end() ? 0 : found->second;
}

Result<WayBack> way_back(const Job& job, const Refuse& refuse) {
    std::string why = "it has no snapshot yet";
    bool first = true;
    for (KeptSnapshot& one : job.snapshots.kept()) {
        std::string reason = one.useless ? "its snapshots cannot be used" : refuse(one.run.get());
        if (reason.empty() && one.own) reason = why_gone(job, one);
        if (reason.empty()) return WayBack{one.path(), &one};
        if (std::exchange(first, false)) why = reason;
    }
    if (job.policy.restart.empty()) return because(Code::not_found, why);
    if (const std::string reason = refuse(nullptr); !reason.empty())
        return because(Code::not_found, first ? reason : why);
    return WayBack{job.policy.restart, nullptr};
}

std::string newest_snapshot(const Job& job) {
    const SnapshotRun* last = job.snapshots.last();
    return last != nullptr ? last->folder + "/" + last->name : job.policy.restart;
}

std::string way_on(const Job& job) {
    const std::string newest = newest_snapshot(job);
    if (newest.empty()) return {};
    return fmt::format("`ghost restart {}` goes on from the job's newest snapshot", newest);
}

std::string way_on_or_none(const Job& job) {
    const std::string way = way_on(job);
    return way.empty() ? "it has no snapshot" : way;
}

}  // namespace ghost::plugin
