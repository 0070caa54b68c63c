// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/rehome.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.hpp"

namespace ghost::plugin::orte41 {

namespace {

// Takes the entry out; its reference is the caller's then.
bool take(opal_pointer_array_t* array, void* entry) {
    for (int i = 0; i < array->size; ++i) {
        if (opal_pointer_array_get_item(array, i) != entry) continue;
        opal_pointer_array_set_item(array, i, nullptr);
        return true;
    }
    return false;
}

bool has(opal_pointer_array_t* array, const void* entry) {
    for (int i = 0; i < array->size; ++i)
        if (opal_pointer_array_get_item(array, i) == entry) return true;
    return false;
}

bool hosts_ranks(const orte_node_t& node) {
    for (int i = 0; i < node.procs->size; ++i) {
        const auto* rank = item<orte_proc_t>(node.procs, i);
        if (rank && rank->name.jobid == app_jobid()) return true;
    }
    return false;
}

// The node's flag MAPPED stays as it is: it is a mark of ORTE's mappers, set only while they map
// one job (orte_regx_base_parse_ppn()), and a node that has it is left out of the map of a job
// spawned later.
void add_to_map(orte_job_map_t& map, orte_node_t* node) {
    if (has(map.nodes, node)) return;
    OBJ_RETAIN(node);
    opal_pointer_array_add(map.nodes, node);
    ++map.num_nodes;
}

void remove_from_map(orte_job_map_t& map, orte_node_t* node) {
    if (!take(map.nodes, node)) return;
    --map.num_nodes;
    OBJ_RELEASE(node);
}

// In mpirun these two count the ranks of the whole job, in a daemon its own.
void count_launched(orte_job_t& job, int change) {
    if (ORTE_PROC_IS_HNP) return;
    job.num_launched += change;
    job.num_reported += change;
}

}  // namespace

void move_mapping(orte_proc_t& rank, orte_proc_t& to) {
    orte_job_t* job = app_job();
    orte_node_t* old_node = rank.node;
    orte_node_t* new_node = to.node;
    if (!take(old_node->procs, &rank)) OBJ_RETAIN(&rank);
    --old_node->num_procs;
    if (old_node->slots_inuse > 0) --old_node->slots_inuse;
    opal_pointer_array_add(new_node->procs, &rank);
    ++new_node->num_procs;
    ++new_node->slots_inuse;
    OBJ_RETAIN(new_node);
    rank.node = new_node;
    rank.parent = to.name.vpid;
    add_to_map(*job->map, new_node);
    if (!hosts_ranks(*old_node)) remove_from_map(*job->map, old_node);
    OBJ_RELEASE(old_node);  // the rank's own reference
}

void remove_local_child(orte_proc_t& rank) {
    orte_job_t* job = app_job();
    orte_proc_t* child = &rank;
    orte_wait_cb_cancel(child);
    ORTE_FLAG_UNSET(child, ORTE_PROC_FLAG_LOCAL);
    --job->num_local_procs;
    count_launched(*job, -1);
    if (take(orte_local_children, child)) OBJ_RELEASE(child);
}

// Under this attribute ORTE takes what is done at the last rank's end for done
// (orte/mca/state/orted, 4.1.4; nothing else looks at it).
void keep_job() {
    orte_set_attribute(&app_job()->attributes, ORTE_JOB_TERM_NOTIFIED, ORTE_ATTR_LOCAL, nullptr,
                       OPAL_BOOL);
}

void report_ended(const orte_proc_t& rank) {
    opal_buffer_t* report = OBJ_NEW(opal_buffer_t);
    const orte_plm_cmd_flag_t command = ORTE_PLM_UPDATE_PROC_STATE;
    const orte_vpid_t no_more = ORTE_VPID_INVALID;
    opal_dss.pack(report, &command, 1, ORTE_PLM_CMD);
    opal_dss.pack(report, &rank.name.jobid, 1, ORTE_JOBID);
    opal_dss.pack(report, &rank.name.vpid, 1, ORTE_VPID);
    opal_dss.pack(report, &rank.pid, 1, OPAL_PID);
    opal_dss.pack(report, &rank.state, 1, ORTE_PROC_STATE);
    opal_dss.pack(report, &rank.exit_code, 1, ORTE_EXIT_CODE);
    opal_dss.pack(report, &no_more, 1, ORTE_VPID);
    const int rc = orte_rml.send_buffer_nb(orte_mgmt_conduit, ORTE_PROC_MY_HNP, report,
                                           ORTE_RML_TAG_PLM, orte_rml_send_callback, nullptr);
    if (rc == ORTE_SUCCESS) return;
    log::error("mpirun is not told that rank {} has ended: error {}", rank.name.vpid, rc);
    OBJ_RELEASE(report);
}

void add_local_child(orte_proc_t& rank, pid_t wrapper) {
    orte_job_t* job = app_job();
    orte_proc_t* child = &rank;
    ORTE_FLAG_SET(child, ORTE_PROC_FLAG_LOCAL);
    ORTE_FLAG_SET(child, ORTE_PROC_FLAG_ALIVE);
    ORTE_FLAG_SET(child, ORTE_PROC_FLAG_REG);
    ORTE_FLAG_UNSET(child, ORTE_PROC_FLAG_IOF_COMPLETE);
    ORTE_FLAG_UNSET(child, ORTE_PROC_FLAG_WAITPID);
    ORTE_FLAG_UNSET(child, ORTE_PROC_FLAG_RECORDED);
    child->state = ORTE_PROC_STATE_RUNNING;
    child->exit_code = 0;
    child->pid = wrapper;
    OBJ_RETAIN(child);
    opal_pointer_array_add(orte_local_children, child);
    ++job->num_local_procs;
    // The rank registers once more when it attaches. ORTE reports to mpirun when the number of
    // registered ranks comes to equal that of local ones: it must be past that already.
    if (!ORTE_PROC_IS_HNP)
        job->num_launched = job->num_reported = static_cast<orte_vpid_t>(job->num_local_procs);
}

}  // namespace ghost::plugin::orte41
