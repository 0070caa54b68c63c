// SPDX-License-Identifier: BSD-3-Clause
// The restart of the job from a snapshot: PROTOCOL.md, "A restart of the job", coordinator's side.
#pragma once

#include <string>

#include "base/fault.hpp"
#include "pmix-plugin/coordinator/operations/engine.hpp"

namespace ghost::plugin {

enum class RestartState {
    reading,    // the manifest
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
        {S::reading, "reading", Phase::prepare, to({S::launching, S::failed})},
        {S::launching, "launching", Phase::prepare, to({S::checking, S::failed})},
        {S::checking, "checking", Phase::prepare, to({S::holding, S::failed}), &C::restart_us},
        {S::holding, "holding", Phase::commit, to({S::going, S::failed}), &C::restart_us},
        {S::going, "going", Phase::resume, to({S::done, S::failed}), &C::freeze_us},
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
};

// Nothing else may begin before the job runs again. If it cannot, the job is ended with all that is
// missing, and this is never over.
class RestartOperation : public StagedOperation<Restart, restart_states> {
  public:
    RestartOperation(Job& job, const std::string& folder, Finished finished);

    void begin() override;
    void message(NodeId from, const schema::Received& m) override;
    void node_lost(NodeId node) override;
    void stop() override {}
    void show(Json& ps) const override;

  private:
    struct Known;

    std::string describe() const override { return "restart from " + data_.folder; }
    void impossible(RestartState next) override;
    void expired() override;
    void known(const Known& known);
    void wait_for_launch();
    void tell_step(DaemonMessage step);
    void step_answered(ParticipantStep step, const StepAnswer& answer);
    bool passes(fault::Point point);  // false: failed
    void fail(const std::string& why);

    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The request for it, the job's first.
Request restart_request(Job& job, const std::string& folder, RestartOperation::Finished finished);

}  // namespace ghost::plugin
