// SPDX-License-Identifier: BSD-3-Clause
// The restart of the job from a snapshot: PROTOCOL.md, "A restart of the job", coordinator's side.
// A recovery is one under the mpirun that the job has: first every rank that is left is ended, and
// wrappers are started where the lost ones are to be (PROTOCOL.md, "A recovery").
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/fault.hpp"
#include "pmix-plugin/coordinator/operations/copies.hpp"
#include "pmix-plugin/coordinator/operations/engine.hpp"
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {

enum class RestartState {
    reading,    // the manifest
    stopping,   // a recovery: every rank ends, and every daemon forgets what it was in
    gathering,  // a recovery: ghosts that are elsewhere are sent to where their ranks are to be
    starting,   // a recovery: every daemon starts its wrappers
    launching,  // the runtime starts the wrappers
    checking,   // they look at what is there; nothing is changed
    holding,    // they cut files back, import and hold; no rank has run
    going,      // the trees run, the ranks attach
    done,
    failed,
};

inline constexpr StateTable restart_states([] {
    using S = RestartState;
    using C = CoordinatorSettings;
    return std::to_array<OperationRow<S>>({
        {S::reading, "reading", Phase::prepare, to({S::launching, S::stopping, S::failed})},
        {S::stopping, "stopping", Phase::capture,
         to({S::gathering, S::starting, S::reading, S::failed}), &C::restart_us},
        {S::gathering, "gathering", Phase::capture, to({S::starting, S::reading, S::failed}),
         &C::restart_us},
        {S::starting, "starting", Phase::capture, to({S::checking, S::reading, S::failed}),
         &C::restart_us},
        {S::launching, "launching", Phase::prepare, to({S::checking, S::failed})},
        {S::checking, "checking", Phase::prepare, to({S::holding, S::reading, S::failed}),
         &C::restart_us},
        {S::holding, "holding", Phase::commit, to({S::going, S::reading, S::failed}),
         &C::restart_us},
        {S::going, "going", Phase::resume, to({S::done, S::reading, S::failed}), &C::freeze_us},
        {S::done, "done", Phase::finish, 0},
        {S::failed, "failed", Phase::finish, 0},
    });
}());

struct Restart {
    RestartState state = RestartState::reading;
    std::string folder;  // of the snapshot
    std::string name;
    std::string taken;  // when the snapshot was
    uint32_t epoch = 0;
    uint64_t ranks = 0;
    uint64_t bytes = 0, total = 0;
    int64_t started = 0;  // µs, the coordinator's clock
    int64_t lasted = 0;
    // A recovery: what was lost, for the user; how often it has begun. Empty: it is none.
    std::string lost;
    int attempts = 0;
    int status = 1;  // of mpirun, if it comes to nothing
    // What was computed since the snapshot (from its begin on), or since the last recovery from it,
    // is computed again: µs.
    std::optional<int64_t> redone;

    bool recovers() const { return !lost.empty(); }
};

// What a recovery is asked to do.
struct RecoveryOrder {
    std::function<Result<WayBack>()> from;  // asked anew whenever it begins anew
    std::string lost;
    int status = 1;
    int64_t computed_from = 0;  // after the last recovery: µs, the coordinator's clock; 0: none
};

// Nothing else may begin before the job runs again. Whatever is lost in a recovery, or fails, makes
// it begin anew, a few times. If it cannot, the job is ended with all that is
// missing, and this is never over.
class RestartOperation : public StagedOperation<Restart, restart_states> {
  public:
    RestartOperation(Job& job, const std::string& folder, Finished finished);
    RestartOperation(Job& job, const RecoveryOrder& order, Finished finished);

    void begin() override;
    void message(NodeId from, const schema::Received& m) override;
    void node_lost(NodeId node) override;
    void stop(const std::string& /*why*/) override {}
    bool lost(const std::string& why) override;
    void show(Json& ps) const override;

  private:
    struct Known;

    std::string describe() const override {
        return (data_.recovers() ? "recovery from " : "restart from ") + data_.folder;
    }
    void impossible(RestartState next) override;
    void expired() override;
    void known(const Known& known);
    void wait_for_launch();
    void check();
    void read();
    void choose();
    void note_redone();
    std::optional<RankId> input_given_again();
    bool rebuild_all(const std::vector<RankId>& ranks);
    void gather();
    void copies_made(NodeId from, const CopiesMade& m);
    bool gives_up_snapshot(bool at_once);
    void stop_ranks();
    void start_ranks();
    void back();
    void wait_for_all();
    bool begin_anew();  // false: it is not to
    void tell_step(DaemonMessage step);
    void step_answered(ParticipantStep step, const StepAnswer& answer);
    bool passes(fault::Point point);  // false: failed
    void fail(const std::string& why);

    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    std::set<NodeId> missing_;  // daemons that have not answered
    std::vector<std::pair<RankId, NodeId>> places_;
    std::function<Result<WayBack>()> from_;
    KeptSnapshot* kept_ = nullptr;  // what it goes on from, if it is of this life
    int64_t computed_from_ = 0;
    std::shared_ptr<const Manifest> manifest_;
    std::string manifest_text_;
    std::vector<GhostCopy> copies_;
    std::vector<XorStream> streams_;  // ghosts that no living node has are made of parity
    std::vector<std::pair<RankId, NodeId>> rebuilt_;
    std::map<std::string, int> tried_;  // snapshots, how often
};

// The request for it, the job's first.
Request restart_request(Job& job, const std::string& folder, RestartOperation::Finished finished);
// The request for a recovery.
Request recovery_request(Job& job, const RecoveryOrder& order, RestartOperation::Finished finished);

}  // namespace ghost::plugin
