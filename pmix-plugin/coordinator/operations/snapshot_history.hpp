// SPDX-License-Identifier: BSD-3-Clause
// What one snapshot of the job leaves for the next.
#pragma once

#include <optional>
#include <utility>

#include "pmix-plugin/coordinator/operations/operation.hpp"
#include "pmix-plugin/coordinator/operations/snapshot.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
class SnapshotHistory {
  public:
    SnapshotHistory(CoordinatorRuntime& adapter, const CoordinatorSettings& settings,
                    const Liveness& liveness, Publish publish)
        : adapter_(adapter),
          settings_(settings),
          liveness_(liveness),
          publish_(std::move(publish)) {}

    // One is complete.
    void add(const SnapshotRun& run);
    // The last complete one.
    const SnapshotRun* last() const { return last_ ? &*last_ : nullptr; }
    // Incremental ones since the last full one.
    int since_full() const { return since_full_; }

    // The job is frozen after a snapshot with `then` = stop.
    bool stopped() const { return stopped_by_.has_value(); }
    // It is to go on: by which one it was frozen, once.
    std::optional<uint64_t> goes_on() { return std::exchange(stopped_by_, std::nullopt); }

    // Not every node has confirmed the end of a failed one: ranks there may be frozen. They are
    // told until they do, and no snapshot is made before.
    void remind(uint64_t seq, uint64_t attempt);
    bool unconfirmed() const { return unconfirmed_.has_value(); }
    // Takes what belongs to that one.
    void message(const schema::Received& m);
    // mpirun ends.
    void stop();

  private:
    struct Unconfirmed {
        uint64_t seq = 0;
        uint64_t attempt = 0;
        TimerId again = 0;
    };

    CoordinatorRuntime& adapter_;
    const CoordinatorSettings& settings_;
    const Liveness& liveness_;
    Publish publish_;
    std::optional<SnapshotRun> last_;
    std::optional<Unconfirmed> unconfirmed_;
    int since_full_ = 0;
    std::optional<uint64_t> stopped_by_;
};

// The folder of the job's newest snapshot, which may be the one it was restarted from; empty: it
// has none.
std::string newest_snapshot(const Job& job);
// For whoever reads that the job ends: the command that goes on from its newest snapshot; empty:
// it has none.
std::string way_on(const Job& job);
// The same as the end of a message.
std::string way_on_or_none(const Job& job);

}  // namespace ghost::plugin
