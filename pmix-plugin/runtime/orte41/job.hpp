// SPDX-License-Identifier: BSD-3-Clause
// Reading ORTE's tables: the application's job, its ranks, the daemons and their nodes.
// Everything is ORTE's and read on its main thread; pointers are not owned and not kept.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pmix-plugin/runtime/orte41/orte_headers.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin::orte41 {

// Job 1 of mpirun's family is the one the user started; 0 is the daemons' own.
orte_jobid_t app_jobid();
orte_job_t* app_job();     // nullptr before the launch message, and on some daemons after the end
orte_job_t* daemon_job();  // never nullptr while RML is up
orte_proc_t* rank_object(RankId rank);    // nullptr: no such rank
orte_proc_t* daemon_object(NodeId node);  // nullptr: no such daemon

// The name of PMIx's name space: the job's number in decimal (opal/mca/pmix/ext3x's convention).
std::string app_name();

// Launched, and not every rank has ended.
bool app_running();
std::vector<NodeInfo> list_nodes();
std::vector<RankInfo> list_ranks();
// Processes of jobs that were spawned, launched or to be, and not ended.
size_t count_guests();
size_t guests_on(NodeId node);
// Those jobs.
void for_each_spawned_job(const std::function<void(orte_job_t&)>& act);
// One that has left may have a successor of the same name.
std::optional<NodeId> find_node_named(const std::vector<NodeInfo>& nodes, const std::string& name);
int slots_of(NodeId node);
int cores_of(NodeId node);  // 0: unknown
// A variable of the application's launch message, "" if it has none.
std::string app_variable(const std::string& name);

// "All processes of this job", as grpcomm wants it. To be released by the caller.
orte_grpcomm_signature_t* wildcard_signature(orte_jobid_t job);

// The daemon that what is sent to this one goes to first; nothing: it cannot be sent.
std::optional<NodeId> way_to(NodeId daemon);
// In mpirun: nothing is sent to this daemon by a broadcast, and its end is not waited for.
void lose_route(NodeId daemon);
// The same in any daemon, of one that has ended: it counts as failed, too.
void count_as_lost(orte_proc_t& daemon);

template <typename Item>
Item* item(opal_pointer_array_t* array, int index) {
    return static_cast<Item*>(opal_pointer_array_get_item(array, index));
}

}  // namespace ghost::plugin::orte41
