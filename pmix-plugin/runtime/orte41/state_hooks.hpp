// SPDX-License-Identifier: BSD-3-Clause
// Standing in front of ORTE's own reaction when the state of a daemon, a rank or a job changes.
//
// ORTE keeps one function for each state in a list (orte_proc_states, orte_job_states); ours takes
// that place and passes on what is not ours. No option of Open MPI 4.1 lets a job survive the loss
// of a daemon.
#pragma once

#include <functional>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin::orte41 {

struct StateHandlers {
    // A daemon's connection broke, or it is reported as failed. True: ORTE must not hear of it.
    std::function<bool(NodeId)> daemon_failed;
    // A rank of the application was forked here; its wrapper is the process ORTE waits for.
    std::function<void(RankId)> rank_forked;
    // One has ended, its output is read, and ORTE counts that by `stock`.
    std::function<void(RankId, const std::function<void()>& stock)> rank_ended;
    // One of this node has not ended as it should. True: ORTE must not hear of it.
    std::function<bool(RankId, int state)> rank_failed;
    // In mpirun: one was ended by a signal, or gave up, and ORTE ends the job because of it.
    std::function<void(RankId)> rank_lost;
    // In mpirun: ORTE may have planned its routes anew, from the numbers of daemons only.
    std::function<void()> routes_planned;
    // In mpirun: all daemons that were started for this job have reported. True: that was all.
    std::function<bool(uint32_t jobid)> daemons_ready;
    // In mpirun: ORTE maps a job by `stock`.
    std::function<void(const std::function<void()>& stock)> mapped;
    // A connection to another daemon has failed. True: this process goes on; whoever is lost is
    // missed in another way.
    std::function<bool()> outlives_connections;
};

// False while ORTE has not filled its list yet: try again a moment later. One set of handlers at a
// time; ORTE's main thread.
bool install_state_hooks(StateHandlers handlers);
// Everything goes to ORTE again.
void remove_state_hooks();

// In mpirun, with the hooks in their place: ORTE starts the daemons of nodes that were added
// (orte/mca/plm), and says of this job when they have reported. Before it returns the nodes have
// their daemons' numbers.
void launch_daemons(uint32_t jobid);

}  // namespace ghost::plugin::orte41
