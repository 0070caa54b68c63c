// SPDX-License-Identifier: BSD-3-Clause
// Copies, or the parity, of the newest snapshot that were lost with a node are made again, while
// the ranks run (docs/PROTOCOL.md, "Copies"). No snapshot is made meanwhile.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/coordinator/operations/copies.hpp"
#include "pmix-plugin/coordinator/operations/engine.hpp"
#include "pmix-plugin/coordinator/operations/parity.hpp"

namespace ghost::plugin {

enum class MendState {
    looking,  // what is lacking
    copying,  // from node to node
    done,     // every ghost survives the loss of a node, or there is nothing to be done
    failed,   // it goes on with what there is: the next snapshot makes its own
};

inline constexpr StateTable mend_states([] {
    using S = MendState;
    using C = CoordinatorSettings;
    return std::to_array<OperationRow<S>>({
        {S::looking, "looking", Phase::prepare, to({S::copying, S::done})},
        {S::copying, "copying", Phase::prepare, to({S::looking, S::done, S::failed}),
         &C::transfer_us},
        {S::done, "done", Phase::finish, 0},
        {S::failed, "failed", Phase::finish, 0},
    });
}());

struct Mend {
    MendState state = MendState::looking;
    std::string path;  // the snapshot's folder
    std::string why;   // it failed
    uint64_t bytes = 0, total = 0;
    int64_t started = 0;  // µs, the coordinator's clock
    int64_t lasted = 0;
};

class MendOperation : public StagedOperation<Mend, mend_states> {
  public:
    explicit MendOperation(Job& job) : StagedOperation(job, nullptr, nullptr) {}

    void begin() override;
    void message(NodeId from, const schema::Received& m) override;
    void node_lost(NodeId node) override;
    void stop(const std::string& why) override;
    void show(Json& ps) const override;

  private:
    std::string describe() const override { return "the copies of " + data_.path; }
    void impossible(MendState) override {}
    void expired() override;
    void look();
    void order_copies();
    void copies_made(NodeId from, const CopiesMade& m);
    void note_in_manifest() const;
    void finish(MendState state, const std::string& why = {});

    std::vector<GhostCopy> copies_;
    ParityMend parity_;
    std::set<NodeId> missing_;  // daemons that have not answered
};

// The request for it, whenever a node is no part of the job any more.
Request mend_request(Job& job);

}  // namespace ghost::plugin
