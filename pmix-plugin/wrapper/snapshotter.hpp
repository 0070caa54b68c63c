// SPDX-License-Identifier: BSD-3-Clause
// A rank's part of the job's snapshots in the wrapper: prepare, freeze, write, end.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/state_machine.hpp"
#include "ghost-core/engine/checkpoint.hpp"
#include "ghost-core/criu/realtime_priority.hpp"
#include "ghost-core/supervisor/work_folder.hpp"
#include "pmix-plugin/wrapper/snapshot_job.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/worker.hpp"

namespace ghost::plugin {

enum class SnapState {
    idle,         // no snapshot
    preparing,    // the worker looks, makes the file and copies; the rank runs
    ready,        // `snap_ready` said
    freezing,     // `snap_freeze` came: the worker freezes the tree
    writing,      // `snap_captured` said: the tree runs, or is frozen (then=kill, then=stop)
    written,      // `snap_written` said; for the coordinator to complete or cancel it
    calling_off,  // cancelled, and the worker has not ended yet
    clearing,     // the worker gives memory back, ends the tracking, removes a cancelled one's file
};

struct SnapRow {
    SnapState state;
    const char* name;
    uint32_t next;
};
// idle, from preparing to writing: it failed, and the rank runs
constexpr StateTable snap_states(std::to_array<SnapRow>({
    {SnapState::idle, "idle", to({SnapState::preparing})},
    {SnapState::preparing, "preparing",
     to({SnapState::ready, SnapState::idle, SnapState::calling_off})},
    {SnapState::ready, "ready", to({SnapState::freezing, SnapState::idle, SnapState::calling_off})},
    {SnapState::freezing, "freezing",
     to({SnapState::writing, SnapState::idle, SnapState::calling_off})},
    {SnapState::writing, "writing",
     to({SnapState::written, SnapState::idle, SnapState::calling_off})},
    // clearing: snap_end without keep or memory, snap_cancel
    {SnapState::written, "written", to({SnapState::idle, SnapState::clearing})},
    // clearing: it was written before it heard of that
    {SnapState::calling_off, "calling off", to({SnapState::idle, SnapState::clearing})},
    {SnapState::clearing, "clearing", to({SnapState::idle})},
}));

// Main thread only.
class Snapshotter {
  public:
    explicit Snapshotter(TreeParts parts);
    ~Snapshotter();
    Snapshotter(const Snapshotter&) = delete;
    Snapshotter& operator=(const Snapshotter&) = delete;

    // Takes a message of the node agent; false: not one of a snapshot.
    bool handle(const schema::Received& message);
    int fd() const { return worker_.fd(); }  // readable: call worker_done()
    void worker_done();
    // Call in every round.
    void step();
    // The tree has ended by itself, or must: whatever goes on is broken off.
    void break_off();
    // The tree is not tracked any more, as it is about to leave. Returns what of its memory is to
    // lie in huge pages where it goes. While there is no snapshot, from any thread.
    core::HugeMemory stop_tracking() {
        checkpointer_.stop_tracking();
        return checkpointer_.huge();
    }

    bool idle() const { return state_ == SnapState::idle; }
    // idle() soon, and by itself.
    bool clearing() const { return state_ == SnapState::clearing; }
    bool busy() const { return worker_.busy(); }
    // The tree was stopped here and takes no signals (then=kill, then=stop).
    bool stopped() const { return stopped_; }

  protected:
    // False: the table has no such change, which is a bug of ours. The node agent is told that the
    // snapshot failed, so that it lets the rank go on.
    bool change(SnapState to);

  private:
    // What the next incremental snapshot is based on: files relative to the folder of snapshots,
    // nearest first.
    using Chain = std::vector<std::string>;

    void prepare(const SnapPrepareRank& asked);
    void freeze(const SnapFreeze& order);
    void write();
    void cancel(uint64_t seq);
    void end(bool keep);
    bool resume(const Resume& word);
    void said(const Outgoing& message);
    void finished(const Outgoing& answer);
    void finished_well(const Written& answer);
    void finished_off(bool written);
    void all_off();
    enum class Tidy { memory, all, all_and_file };
    void tidy(Tidy what);
    void let_run(const std::optional<AgentThread>& agent);
    void uncarry();

    TreeParts parts_;
    SnapState state_ = SnapState::idle;
    uint64_t seq_ = 0;
    core::Checkpointer checkpointer_;
    std::unique_ptr<SnapshotJob> job_;  // of this snapshot, until it is ended
    core::WorkFolder folder_;
    Chain chain_;       // of the last one that was kept
    Chain next_chain_;  // if this one is kept
    // All of a chain is signed with, if any is: nobody else has it, and it is nowhere but here.
    // What it has signed the manifest says, which is signed by the user's key on mpirun's node.
    std::shared_ptr<const SigningKey> chain_key_;
    std::optional<Resume> resume_;  // came while the worker was busy
    bool answer_cancel_ = false;
    bool carried_ = false;
    bool stopped_ = false;
    std::optional<core::RealtimePriority> realtime_;  // from the order to freeze on
    Worker worker_;                                   // last: its job uses what is above
};

}  // namespace ghost::plugin
