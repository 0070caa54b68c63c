// SPDX-License-Identifier: BSD-3-Clause
// The job goes on after a snapshot with `then` = stop: PROTOCOL.md, "A snapshot of the job".
#pragma once

#include <string>

#include "pmix-plugin/coordinator/operations/engine.hpp"

namespace ghost::plugin {

enum class ContinuationState {
    frozen,  // as the snapshot left it
    going,   // the trees run, the ranks attach
    done,
};

inline constexpr StateTable continuation_states([] {
    using S = ContinuationState;
    using C = CoordinatorSettings;
    return std::to_array<OperationRow<S>>({
        {S::frozen, "frozen", Phase::capture, to({S::going})},
        {S::going, "going", Phase::resume, to({S::done}), &C::abort_us, true},
        {S::done, "done", Phase::finish, 0},
    });
}());

struct Continuation {
    ContinuationState state = ContinuationState::frozen;
    uint64_t stopped_by = 0;  // the snapshot's number; it still holds the fences
    uint64_t attempt = 0;
    int64_t started = 0;  // µs, the coordinator's clock
    int64_t lasted = 0;
};

// Nothing else begins before every rank is back. Nodes are told until they say so, in the end by
// the history of snapshots.
class ContinueOperation : public StagedOperation<Continuation, continuation_states> {
  public:
    ContinueOperation(Job& job, uint64_t stopped_by);

    void begin() override;
    void message(NodeId from, const schema::Received& m) override;
    void node_lost(NodeId) override { tell(); }
    void stop(const std::string& /*why*/) override { stop_timers(); }
    void show(Json&) const override {}

  private:
    std::string describe() const override { return "the job, after its snapshot"; }
    void impossible(ContinuationState) override {}
    void expired() override;
    void tell();
    void finish();
};

// The request for it; `stopped_by` is the number of the snapshot that froze the job.
Request continue_request(Job& job, uint64_t stopped_by);

}  // namespace ghost::plugin
