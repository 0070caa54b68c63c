// SPDX-License-Identifier: BSD-3-Clause
// The job's fences while operations are under way: held for all of them together, a batch, and let
// go when the last one of it does not need them held any more.
#pragma once

#include <map>
#include <optional>
#include <set>

#include "pmix-plugin/runtime/interface/rehoming.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
//
// A move that is decided changes how many contributions a fence waits for. Every daemon says with
// its `switched` how many it will make, all told; so what holds for a batch is what the daemons
// said to the last move of it that was decided. Once a member of a batch has decided or has left
// it, nobody joins: a job that is moved rank after rank must get its fences in between.
class Fences {
  public:
    explicit Fences(JobFences& runtime) : runtime_(runtime) {}

    // False: one is completing, or the present batch is coming to its end; ask again a moment
    // later.
    bool hold(uint64_t seq);
    // The batch comes to its end: nobody joins it, however quiet the fences are.
    bool closing() const { return closing_; }
    // The operation is over, or needs them no more. Nothing happens if it holds none, or if only
    // votes are missing for which it waits no more.
    void release(uint64_t seq);
    // It is decided: the fences stay held until these daemons have voted.
    void decide(uint64_t seq, std::set<NodeId> daemons);
    // False: nothing was expected from there.
    bool vote(uint64_t seq, NodeId daemon, int votes);
    // The daemon votes for nothing any more.
    void node_lost(NodeId daemon);
    // Daemons whose vote is missing.
    std::set<NodeId> unanswered(uint64_t seq) const;
    // A daemon that owes its vote to an operation for which it is not waited any more.
    std::optional<NodeId> owing() const;
    // The operation goes on without the votes that are missing; the fences do not.
    void wait_no_more(uint64_t seq);
    // All ranks are lost, and the runtime's fences with them.
    void forget() {
        holders_.clear();
        closing_ = false;
        settled_by_ = 0;
    }

  private:
    struct Holder {
        uint64_t decided = 0;  // which decision of the job; 0: none yet
        std::set<NodeId> unanswered;
        int votes = 0;
        bool waited_for = true;
    };

    void leave(std::map<uint64_t, Holder>::iterator holder);

    JobFences& runtime_;
    std::map<uint64_t, Holder> holders_;  // the batch, by operation
    bool closing_ = false;                // nobody joins it
    uint64_t last_decision_ = 0;
    uint64_t settled_by_ = 0;  // the batch's last decision among those that have left
    int votes_ = 0;            // made to it
};

}  // namespace ghost::plugin
