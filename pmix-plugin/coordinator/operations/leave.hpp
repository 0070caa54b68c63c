// SPDX-License-Identifier: BSD-3-Clause
// The daemon of a node without ranks leaves the job: PROTOCOL.md, "A drain".
#pragma once

#include <string>

#include "pmix-plugin/coordinator/operations/engine.hpp"

namespace ghost::plugin {

enum class LeaveState {
    checking,  // nothing has been asked of anyone
    asking,    // the daemon looks whether it hosts anything
    leaving,   // it is out of the job; it ends
    done,      // it has ended
    failed,    // it stays
};

inline constexpr StateTable leave_states([] {
    using S = LeaveState;
    using C = CoordinatorSettings;
    return std::to_array<OperationRow<S>>({
        {S::checking, "checking", Phase::prepare, to({S::asking, S::failed})},
        {S::asking, "asking", Phase::commit, to({S::leaving, S::done, S::failed}), &C::leave_us},
        {S::leaving, "leaving", Phase::resume, to({S::done}), &C::leave_us},
        {S::done, "done", Phase::finish, 0},
        {S::failed, "failed", Phase::finish, 0},
    });
}());

struct Leave {
    LeaveState state = LeaveState::checking;
    NodeId node = 0;
    std::string name;     // of the node
    bool ended = true;    // its process; else it is only out of the job
    int64_t started = 0;  // µs, the coordinator's clock
    int64_t lasted = 0;
    std::string why;  // it stays
};

class LeaveOperation : public StagedOperation<Leave, leave_states> {
  public:
    LeaveOperation(Job& job, NodeId node, Finished finished);

    void begin() override;
    void message(NodeId from, const schema::Received& m) override;
    void node_lost(NodeId node) override;
    void stop(const std::string& why) override;
    void show(Json&) const override {}

  private:
    std::string describe() const override;
    void impossible(LeaveState) override {}
    void expired() override;
    std::optional<std::string> check() const;
    void dismiss();
    void gone();
    void finish(LeaveState state, const std::string& why = {});

    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The request for it: nothing else is under way meanwhile.
Request leave_request(Job& job, uint64_t id, NodeId node, LeaveOperation::Finished finished);

}  // namespace ghost::plugin
