// SPDX-License-Identifier: BSD-3-Clause
// One snapshot of the job as plain data, its states and the table of what may follow what.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pmix-plugin/coordinator/coordinator.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

enum class SnapshotState {
    checking,    // nothing has been asked of anyone
    opening,     // its folder is made
    preparing,   // the wrappers look at their ranks and copy memory; again if a rank was busy
    pinging,     // every daemon answers once more
    holding,     // no job-wide fence may complete
    gating,      // every rank closes its gates; again if one was busy
    standing,    // the trees stand, one after the other comes back: the pause
    writing,     // the ranks run, the ghosts go to disk
    completing,  // the manifest is written, the folder renamed
    done,
    aborting,    // every rank is brought home
    discarding,  // what was written is removed
    refused,     // nothing was done
    deferred,    // not now: a rank is in MPI_Init or MPI_Finalize, or never outside of a call
    failed,
};

const char* name(SnapshotState state);
// The transition table.
bool may_follow(SnapshotState from, SnapshotState to);
// Longest stay in a state, or longest time without progress in it; 0: the state does not wait.
int64_t limit_of(SnapshotState state, const CoordinatorSettings& settings);
// done, refused, deferred, failed
bool is_final(SnapshotState state);
// Ranks stand, or are about to.
bool is_urgent(SnapshotState state);

struct SnapshotRun {
    SnapshotState state = SnapshotState::checking;
    uint64_t seq = 0;
    uint64_t attempt = 0;  // `try` of the present step
    std::string name;      // JOB-NNNNNN
    std::string folder;    // of all snapshots, absolute
    std::string second;    // where the same goes once more; empty: nowhere
    std::string then;      // continue, stop or kill
    std::string asked_by;  // for the event log
    std::string compress;
    bool incremental = false;  // as asked for; what it became is in the rows
    uint64_t rate = 0;

    uint64_t ranks = 0;           // of the job
    bool folder_made = false;     // to be removed if this comes to nothing
    bool node_local = false;      // some daemons keep their ranks' ghosts on a disk of their own
    bool second_local = false;    // the same of the second folder
    bool told_nodes = false;      // they are to be told of an abort
    bool ungating = false;        // in state gating: a rank was busy, all open again
    bool fences_held = false;     // released exactly once
    Json facts = Json::object();  // job_facts()
    StepAnswer written;           // all rows
    std::string kind;             // full or incremental
    uint64_t bytes = 0;
    uint64_t total = 0;

    int64_t started = 0;    // µs, the coordinator's clock
    int64_t gate_sent = 0;  // the last `snap_gate`
    int64_t busy_since = 0;
    int64_t pause = 0;  // from the last `snap_gate` until every rank was back
    int64_t lasted = 0;
    std::string time;       // UTC, of the manifest
    bool deferred = false;  // what it ends as: not now, instead of failed
    bool harmed = false;    // the job was
    std::string why;
};

// {snapshot, name, kind, ranks, bytes, pause_us, total_us}: docs/PROTOCOL.md, "T → C".
Json result_of(const SnapshotRun& run);

}  // namespace ghost::plugin
