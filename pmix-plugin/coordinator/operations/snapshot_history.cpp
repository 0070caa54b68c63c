// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"

#include <fmt/format.h>
#include <utility>

namespace ghost::plugin {

void SnapshotHistory::add(const SnapshotRun& run) {
    last_ = run;
    since_full_ = run.kind == "full" ? 0 : since_full_ + 1;
    if (run.then == "stop") stopped_by_ = run.seq;
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
