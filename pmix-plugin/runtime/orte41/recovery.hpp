// SPDX-License-Identifier: BSD-3-Clause
// A job that goes on under the same mpirun after ranks or daemons are lost, in every daemon: all
// ranks end and are forgotten, then a wrapper is started for each, here or elsewhere, that restarts
// it from a snapshot. No option of Open MPI 4.1 does that; orte_odls.restart_proc() is the birth of
// one rank as ORTE itself would do it.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "pmix-plugin/runtime/orte41/loop.hpp"
#include "pmix-plugin/runtime/orte41/rank_input.hpp"

namespace ghost::plugin::orte41 {

// ORTE's main thread only.
class Recovery {
  public:
    Recovery(Loop& loop, RankInput& input) : loop_(loop), input_(input) {}

    // Asked when a local rank has failed: its exit code if it was killed (SIGKILL, SIGBUS) or gave
    // up, else 0. True: ORTE does not hear of it.
    void on_died(std::function<bool(RankId, int status)> handler) { died_ = std::move(handler); }
    // ORTE reports this state of a rank. True: it must not react.
    bool swallow(RankId rank, int state);
    // It has ended, and ORTE has not heard of it.
    bool is_kept_quiet(RankId rank) const { return gone_.contains(rank); }
    // ORTE hears of it after all.
    void let_end(RankId rank);

    // See Rehoming. What this node's agent knows of is dead or dying.
    void stop(const std::vector<NodeId>& lost, std::function<void(const Status&)> stopped);
    Status start(const RuntimeAdapter::Births& births);
    // A wrapper has been started here.
    void born(RankId rank);

  private:
    void look();
    bool is_gone(RankId rank) const;
    void kill_wrappers() const;
    Status forget_ranks() const;

    Loop& loop_;
    RankInput& input_;
    std::function<bool(RankId, int)> died_;
    std::map<RankId, int> gone_;  // ended, with the state that ORTE has not heard of
    std::set<RankId> let_go_;     // of these it is to hear
    std::function<void(const Status&)> stopped_;
    int64_t waited_us_ = 0;
    bool settled_ = false;  // nobody is left, at the last look
    bool looking_ = false;
    std::optional<RankId> input_of_;
    bool input_ended_ = false;
};

}  // namespace ghost::plugin::orte41
