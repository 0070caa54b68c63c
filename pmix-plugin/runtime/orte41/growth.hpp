// SPDX-License-Identifier: BSD-3-Clause
// Daemons for nodes that join while the job runs.
//
// ORTE starts them in the way in which it does for MPI_Comm_spawn with the key "add-host": for a
// job without processes, of which nothing is left when they have reported. What stock ORTE tells
// with that job's launch to all daemons, and not rightly to those that there were, we tell: the new
// one gets the launch message of the application's job, as it is placed now; the others a name.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"
#include "pmix-plugin/runtime/orte41/daemons.hpp"

namespace ghost::plugin::orte41 {

// In mpirun; ORTE's main thread only.
class Growth {
  public:
    explicit Growth(Daemons& daemons) : daemons_(daemons) {}

    // One at a time. `runs`: see Lifecycle::start_daemon().
    Result<NewNode> start(const std::string& host, int slots,
                          std::function<void(const Status&)> runs);
    // The daemon starts, or has failed to: it is no part of the job.
    bool is_outside(NodeId node) const { return outside_.contains(node); }
    // ORTE reports a daemon as failed. True: it was being started.
    bool failed(NodeId node);
    // Nobody waits for it any more.
    void give_up(NodeId node);
    void routes_planned();
    bool daemons_ready(uint32_t jobid);
    // mpirun ends.
    void stop();

  private:
    struct Starting {
        NewNode node;
        uint32_t jobid = 0;
        std::function<void(const Status&)> runs;
    };

    void forget_job();
    void over(const Status& status);

    Daemons& daemons_;
    std::optional<Starting> starting_;
    std::set<NodeId> outside_;
    uint32_t launches_ = 0;
};

// In a daemon that knows the job: another one is part of it.
void learn_daemon(const NewNode& node);

}  // namespace ghost::plugin::orte41
