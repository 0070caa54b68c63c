// SPDX-License-Identifier: BSD-3-Clause
// Whether the job goes on by itself after a loss (ghost_recover): from which snapshot, or why not.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "pmix-plugin/coordinator/operations/operation.hpp"
#include "pmix-plugin/coordinator/operations/restart.hpp"
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
class Recoveries {
  public:
    explicit Recoveries(Job& job) : job_(job) {}

    // The first rank has attached.
    void job_runs() {
        runs_ = true;
        since_ = job_.settings.now();
        relayed_ = job_.adapter.relayed();
    }
    void input_taken(const InputTaken& m) { input_[m.rank] = m.bytes; }

    struct Decision {
        std::string why;  // it does not; empty: it does
        RecoveryOrder order;
    };
    // `rank`: what is lost is this rank; `lost`: the same for the user.
    Decision after(const std::string& lost, std::optional<RankId> rank, int status);
    // Mean time between the losses that this job has gone on from, once there are enough of them to
    // say: µs.
    std::optional<int64_t> measured_mtbf_us() const;
    // The ranks are back.
    void done() { went_on_ = job_.settings.now(); }

  private:
    std::string why_not() const;
    std::string why_input_is_lost(const SnapshotRun* from) const;
    Result<WayBack> way_back() const;
    bool dies_again(RankId rank, const WayBack& from);

    // Of a rank: how long it had computed since that snapshot.
    struct Death {
        std::optional<RankId> rank;
        std::string snapshot;
        int64_t computed_us = 0;
    };

    Job& job_;
    bool runs_ = false;
    bool relayed_ = false;  // when the job began: a lost daemon has no route
    int so_many_ = 0;
    int64_t since_ = 0;                // the job runs: µs, the coordinator's clock
    std::map<RankId, int64_t> input_;  // bytes of input that ranks have been given
    Death last_death_;
    int64_t went_on_ = 0;  // after the last one: µs, the coordinator's clock
};

}  // namespace ghost::plugin
