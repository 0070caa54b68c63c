// SPDX-License-Identifier: BSD-3-Clause
// A snapshot of the job: PROTOCOL.md, "A snapshot of the job", coordinator's side.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/fault.hpp"
#include "pmix-plugin/coordinator/operations/copies.hpp"
#include "pmix-plugin/coordinator/operations/engine.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"
#include "pmix-plugin/snapshots/parity.hpp"

namespace ghost::plugin {

enum class SnapshotState {
    checking,    // nothing has been asked of anyone
    opening,     // its folder is made
    preparing,   // the wrappers look at their ranks and copy memory; again if a rank was busy
    pinging,     // every daemon answers once more
    holding,     // no job-wide fence may complete
    gating,      // every rank closes its gates; again if one was busy
    freezing,    // the trees are frozen, one after the other comes back: the pause
    writing,     // the ranks run, the ghosts go to disk
    copying,     // the ghosts are copied to other nodes, or their parity is made
    completing,  // the manifest is written, the folder renamed
    done,
    aborting,    // every rank is brought home
    discarding,  // what was written is removed
    refused,     // nothing was done
    deferred,    // not now: a rank is in MPI_Init, or never outside of a call
    failed,
};

inline constexpr StateTable snapshot_states([] {
    using S = SnapshotState;
    using C = CoordinatorSettings;
    return std::to_array<OperationRow<S>>({
        {S::checking, "checking", Phase::prepare, to({S::opening, S::refused, S::deferred})},
        {S::opening, "opening", Phase::prepare, to({S::preparing, S::discarding})},
        {S::preparing, "preparing", Phase::prepare, to({S::pinging, S::aborting}), &C::transfer_us},
        {S::pinging, "pinging", Phase::prepare, to({S::holding, S::aborting}), &C::hold_us, false,
         true},
        {S::holding, "holding", Phase::quiesce, to({S::gating, S::aborting}), &C::hold_us},
        {S::gating, "gating", Phase::quiesce, to({S::holding, S::freezing, S::aborting}),
         &C::gate_us, true},
        {S::freezing, "freezing", Phase::capture, to({S::writing, S::aborting}), &C::freeze_us,
         true},
        {S::writing, "writing", Phase::commit, to({S::copying, S::completing, S::aborting}),
         &C::transfer_us},
        {S::copying, "copying", Phase::commit, to({S::completing, S::aborting}), &C::transfer_us},
        {S::completing, "completing", Phase::commit, to({S::done, S::aborting})},
        {S::done, "done", Phase::finish, 0},
        {S::aborting, "aborting", Phase::resume, to({S::discarding}), &C::abort_us, true},
        {S::discarding, "discarding", Phase::resume, to({S::failed, S::deferred})},
        {S::refused, "refused", Phase::finish, 0},
        {S::deferred, "deferred", Phase::finish, 0},
        {S::failed, "failed", Phase::finish, 0},
    });
}());

struct SnapshotRun {
    SnapshotState state = SnapshotState::checking;
    uint64_t seq = 0;
    uint64_t attempt = 0;  // `try` of the present step
    std::string name;      // JOB-NNNNNN
    std::string folder;    // of all snapshots, absolute
    std::string second;    // where the same goes once more; empty: nowhere
    bool partner = false;  // each node's part is copied to another one
    uint32_t xor_of = 0;   // parity is made over groups of so many nodes; 0: none
    // What a lost node had is elsewhere too, and has to be again after a loss.
    bool outlives_nodes() const { return partner || xor_of > 0; }
    std::string then;      // continue, stop or kill
    std::string asked_by;  // for the event log
    std::string compress;
    bool incremental = false;  // as asked for; what it became is in the rows
    uint64_t rate = 0;
    std::string sign;  // file with the key; empty: it is not signed

    uint64_t ranks = 0;         // how many
    bool folder_made = false;   // to be removed if this comes to nothing
    bool node_local = false;    // some daemons keep their ranks' ghosts on a disk of their own
    bool second_local = false;  // the same of the second folder
    bool ungating = false;      // in state gating: a rank was busy, all open again
    JobDescription job;         // describe_job()
    StepAnswer written;         // all rows
    std::map<RankId, int64_t> input;  // bytes that ranks had been given; -1: not known
    std::map<NodeId, NodeId> copied;  // who has copies of whose ghosts
    Holders holders;                  // of what is in nodes' memory, or on disks of their own
    std::map<RankId, std::vector<std::string>> files;  // the same, of one with copies or parity
    std::vector<ParitySet> parity;
    std::vector<std::string> old, old_seconds;  // snapshots that gave way to it, in both folders
    std::string kind;                           // full or incremental
    uint64_t bytes = 0;
    uint64_t total = 0;

    int64_t started = 0;    // µs, the coordinator's clock
    int64_t gate_sent = 0;  // the last `snap_gate`
    int64_t busy_since = 0;
    int64_t pause = 0;  // from the last `snap_gate` until every rank was back
    int64_t lasted = 0;
    std::string time;       // UTC, of the manifest
    bool deferred = false;  // what it ends as: not now, instead of failed
    bool closed = false;    // ranks have left their servers, and may be frozen
    bool undone = false;    // somebody wants it so
    bool still = false;     // a rank cannot act
    bool harmed = false;    // the job was
    std::string why;
};

// Where it is, for the user: disk, memory, partner (which is memory of two nodes) or xor (memory,
// and parity in that of others), "… and disk".
std::string level_of(const SnapshotRun& run);
// {snapshot, name, kind, ranks, bytes, pause_us, total_us}: docs/PROTOCOL.md, "T → C".
Json result_of(const SnapshotRun& run);

struct SnapshotOrder {
    std::string then = "continue";  // or stop, kill
    std::string to = {};            // see places_for()
    std::string asked_by = {};      // "interval", "ghost checkpoint", a signal's name, …
    std::set<RankId> ranks = {};    // empty: all of the job
    std::string sign = {};          // file with the key; empty: as the parameters say
};

class SnapshotOperation : public StagedOperation<SnapshotRun, snapshot_states> {
  public:
    SnapshotOperation(Job& job, SnapshotOrder order, Progress progress, Finished finished);

    void begin() override;
    void message(NodeId from, const schema::Received& m) override;
    void node_lost(NodeId node) override;
    void stop(const std::string& why) override;
    bool undo(const std::string& why) override;
    void show(Json& ps) const override;

  private:
    struct Opened;
    struct Completed;

    std::string describe() const override;
    void entered() override;
    void impossible(SnapshotState next) override;
    void expired() override;
    std::string limit_text() const;
    std::optional<std::string> check();
    std::optional<std::string> guests_are_there() const;
    void tell_step(DaemonMessage step);
    // The answer of something that ran beside the loop, if this is still there to take it.
    template <typename T>
    void run(std::function<T()> work, void (SnapshotOperation::*then)(T));

    void open();
    void opened(Opened opened);
    void send_prepare();
    void on_ready(const StepAnswer& answer);
    void try_hold();
    void try_again();
    void send_gate();
    void on_gated(const StepAnswer& answer);
    void on_resumed(const StepAnswer& answer);
    void on_written(StepAnswer answer);
    void share_out();
    void copy();
    void make_parity();
    void order_copies(MakeCopies order);
    std::string why_not_kept(NodeId from, const std::string& why) const;
    void copies_made(NodeId from, const CopiesMade& m);
    void copies_progressed(NodeId from, const CopiesProgress& m);
    void complete();
    void completed(Completed completed);
    void progressed(const StepProgress& m);
    void step_answered(ParticipantStep step, StepAnswer answer);
    void on_aborted(const StepAnswer& answer);
    void refuse_for(const StepAnswer& answer);

    bool passes(fault::Point point);  // false: aborted
    void abort(const std::string& why);
    void discard();
    void discarded(std::string why);
    void finish(SnapshotState state);

    const SnapshotOrder order_;
    std::shared_ptr<const SigningKey> key_;
    std::set<NodeId> missing_;  // daemons that have not said that their copies are made
    std::map<NodeId, std::pair<uint64_t, uint64_t>> copied_bytes_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The request for one. If it is not carried out `finished` is told so, too.
Request snapshot_request(Job& job, uint64_t owner, SnapshotOrder order,
                         SnapshotOperation::Progress progress,
                         SnapshotOperation::Finished finished);

// The manifest of a snapshot all of whose ghosts are written, from the rows of step `written` and
// the runtime's description of the job. `epoch` is the placement's that was saved.
Manifest manifest_of(const SnapshotRun& run, const std::string& job, uint64_t epoch);

}  // namespace ghost::plugin
