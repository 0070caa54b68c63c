// SPDX-License-Identifier: BSD-3-Clause
// Carries out one snapshot of the job at a time: the state machine of PROTOCOL.md, "A snapshot of
// the job", coordinator's side.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/runtime/interface/background.hpp"
#include "pmix-plugin/coordinator/job_lock.hpp"
#include "pmix-plugin/coordinator/liveness.hpp"
#include "pmix-plugin/coordinator/policy.hpp"
#include "pmix-plugin/coordinator/snapshot.hpp"
#include "pmix-plugin/runtime/interface/directory.hpp"

namespace ghost::plugin {

struct SnapshotOrder {
    std::string then = "continue";  // or stop, kill
    std::string to;                 // see places_for()
    std::string asked_by;           // "interval", "ghost checkpoint", a signal's name, …
};

// Loop thread only; owned by the coordinator.
class Snapshotter {
  public:
    // The job-wide state it shares with the rest of the coordinator.
    struct Context {
        RuntimeAdapter& adapter;
        const CoordinatorSettings& settings;
        const SnapshotPolicy& policy;
        Liveness& liveness;
        Directory& directory;
        Background& background;
        std::shared_ptr<JobLock> lock;
        uint64_t& last_seq;                                    // of moves and snapshots
        std::function<void(const kernet::Location&)> publish;  // to every node
        std::function<uint32_t()> epoch;                       // of the present placement
        std::function<std::optional<std::string>()> obstacle;  // why no operation can begin now
    };
    using Progress = std::function<void(const SnapshotRun&)>;
    using Finished = std::function<void(const SnapshotRun&)>;

    explicit Snapshotter(Context context) : c_(std::move(context)) {}

    bool busy() const { return run_.has_value(); }
    // Starts one; `finished` is called once, perhaps before begin() returns.
    void begin(const SnapshotOrder& order, Progress progress, Finished finished);
    // snap_up and snap_progress of this node's own agent.
    void message(const schema::Received& m);
    // The daemon is gone (lost or given up).
    void node_lost(NodeId node);
    // The job goes on after `then` = stop (SIGCONT).
    void continue_job();
    bool stopped() const { return stopped_; }
    const SnapshotRun* current() const { return run_ ? &*run_ : nullptr; }
    // The last complete one.
    const SnapshotRun* last() const { return last_ ? &*last_ : nullptr; }
    // Drops everything without another message; `finished` is called for one under way.
    void stop();

  private:
    struct Opened;
    struct Completed;
    // The end of the last one, which not every node has confirmed: ranks there may stand. It is
    // told them until they do.
    struct Unconfirmed {
        uint64_t seq = 0;
        uint64_t attempt = 0;
        TimerId again = 0;
    };

    void change(SnapshotState next);
    void arm_limit();
    void expired();
    std::string limit_text() const;
    void retry_after(int64_t us, void (Snapshotter::*step)());
    std::optional<std::string> check();
    std::optional<std::string> guests_are_there() const;
    void order(DaemonMessage step);
    void order(DaemonMessage step, uint64_t seq, uint64_t attempt);

    void open();
    void opened(Opened opened);
    void send_prepare();
    void on_ready(const StepAnswer& answer);
    void try_hold();
    void send_gate();
    void on_gated(const StepAnswer& answer);
    void on_resumed(const StepAnswer& answer);
    void complete(StepAnswer answer);
    void completed(Completed completed);
    void progressed(const StepProgress& m);
    void step_answered(ParticipantStep step, StepAnswer answer);
    void publish(const StepAnswer& answer);
    void refuse_for(const StepAnswer& answer);

    void abort(const std::string& why);
    void discard();
    void release();
    void remind();
    void confirmed(const schema::Received& m);
    void finish(SnapshotState state);

    Context c_;
    std::optional<SnapshotRun> run_;
    std::optional<SnapshotRun> last_;
    std::optional<Unconfirmed> unconfirmed_;
    int since_full_ = 0;  // incremental ones since the last full one
    bool stopped_ = false;
    Progress progress_;
    Finished finished_;
    std::optional<TimerId> limit_;
    std::optional<TimerId> retry_;
};

}  // namespace ghost::plugin
