// SPDX-License-Identifier: BSD-3-Clause
// What one snapshot of the job leaves for the next.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "pmix-plugin/coordinator/operations/operation.hpp"
#include "pmix-plugin/coordinator/operations/snapshot.hpp"

namespace ghost::plugin {

// One folder that a complete snapshot of this life is in.
struct KeptSnapshot {
    std::shared_ptr<const SnapshotRun> run;
    std::string folder;  // of all snapshots
    bool own = false;    // it is in nodes' memory, or on disks of their own, as `holders` says
    Holders holders;
    std::vector<ParitySet> parity;
    bool useless = false;  // a recovery has tried it

    std::string path() const { return folder + "/" + run->name; }
};

// Loop thread only; owned by the coordinator.
class SnapshotHistory {
  public:
    SnapshotHistory(CoordinatorRuntime& adapter, const CoordinatorSettings& settings,
                    const Liveness& liveness, Publish publish)
        : adapter_(adapter),
          settings_(settings),
          liveness_(liveness),
          publish_(std::move(publish)) {}

    // One is complete. A folder below `memory` is one of each node's own.
    void add(const SnapshotRun& run, const std::string& memory);
    // The last complete one.
    const SnapshotRun* last() const { return last_.get(); }
    // One that goes to memory is about to begin: whether it is the so many-th, which goes to the
    // disk too, whatever becomes of it.
    bool disk_is_due(int every);
    // All there are, the newest first.
    std::list<KeptSnapshot>& kept() { return kept_; }
    const std::list<KeptSnapshot>& kept() const { return kept_; }
    KeptSnapshot* find(const std::string& path);
    // The job goes on from this one: what came after it has not happened.
    void went_back_to(const std::string& path);
    // Of a rank: nobody goes back to where it had been given less.
    uint64_t input_needed_from(RankId rank) const;
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
    std::shared_ptr<const SnapshotRun> last_;
    std::list<KeptSnapshot> kept_;
    std::optional<Unconfirmed> unconfirmed_;
    int since_full_ = 0;
    int since_disk_ = 0;
    std::optional<uint64_t> stopped_by_;
};

// How many bytes of this mpirun's input the rank had been given by then, -1: not known; nullptr:
// the snapshot is the one that the job was restarted from.
int64_t input_by(const SnapshotRun* run, RankId rank);

// What a job can go on from: the newest snapshot that is on a disk all nodes see, or in the memory
// of nodes of which one lives for every rank; `refuse` says what speaks against one, or nothing.
// nullptr: it is the one that the job was restarted from.
using Refuse = std::function<std::string(const SnapshotRun* run)>;
struct WayBack {
    std::string path;  // the snapshot's folder
    KeptSnapshot* kept = nullptr;
};
Result<WayBack> way_back(const Job& job, const Refuse& refuse);

// The folder of the job's newest snapshot, which may be the one it was restarted from; empty: it
// has none.
std::string newest_snapshot(const Job& job);
// For whoever reads that the job ends: the command that goes on from its newest snapshot; empty:
// it has none.
std::string way_on(const Job& job);
// The same as the end of a message.
std::string way_on_or_none(const Job& job);

}  // namespace ghost::plugin
