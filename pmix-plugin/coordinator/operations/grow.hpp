// SPDX-License-Identifier: BSD-3-Clause
// `ghost grow`: a node that is no part of the job joins it: PROTOCOL.md, "A node that joins".
#pragma once

#include <set>
#include <string>

#include "pmix-plugin/coordinator/operations/engine.hpp"

namespace ghost::plugin {

enum class GrowState {
    checking,  // nothing has been asked of anyone
    starting,  // its daemon is started, and reports to the runtime
    joining,   // every daemon hears of it, and it hears of the job
    done,
    failed,  // the job is as it was
};

inline constexpr StateTable grow_states([] {
    using S = GrowState;
    using C = CoordinatorSettings;
    return std::to_array<OperationRow<S>>({
        {S::checking, "checking", Phase::prepare, to({S::starting, S::done, S::failed})},
        {S::starting, "starting", Phase::prepare, to({S::joining, S::failed}), &C::start_us},
        {S::joining, "joining", Phase::prepare, to({S::done, S::failed}), &C::join_us},
        {S::done, "done", Phase::finish, 0},
        {S::failed, "failed", Phase::finish, 0},
    });
}());

struct GrowOrder {
    uint64_t id = 0;   // of its request
    std::string node;  // its name, as mpirun's host list would have it
    int slots = 1;
};

struct Grow {
    GrowState state = GrowState::checking;
    GrowOrder order;
    NewNode node;
    bool again = false;   // it was there, and drained
    int64_t started = 0;  // µs, the coordinator's clock
    int64_t lasted = 0;
    std::string why;  // it has not joined
};

class GrowOperation : public StagedOperation<Grow, grow_states> {
  public:
    GrowOperation(Job& job, GrowOrder order, Progress progress, Finished finished);

    void begin() override;
    void message(NodeId from, const schema::Received& m) override;
    void node_lost(NodeId node) override;
    void stop(const std::string& why) override;
    bool undo(const std::string& why) override;
    void show(Json&) const override {}

  private:
    std::string describe() const override;
    void impossible(GrowState) override {}
    void expired() override;
    std::optional<std::string> check() const;
    // It is part of the job. True: that was all.
    bool is_there();
    void start();
    void runs(const Status& status);
    void tell_all();
    void answered(NodeId daemon);
    void fail(const std::string& why);
    void leave_out();
    void finish(GrowState state, const std::string& why = {});

    std::set<NodeId> missing_;  // daemons that have not answered
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The request for it: nothing else is under way meanwhile.
Request grow_request(Job& job, uint64_t owner, GrowOrder order, GrowOperation::Progress progress,
                     GrowOperation::Finished finished);

}  // namespace ghost::plugin
