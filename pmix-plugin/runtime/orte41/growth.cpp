// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/growth.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <utility>

#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/orte41/state_hooks.hpp"

namespace ghost::plugin::orte41 {

namespace {

// Jobs of launches; no number that ORTE counts upwards to. None is used twice soon: ORTE may still
// have something to say of the one before.
constexpr uint32_t first_launch = 0xf000, launch_numbers = 0x0f00;

bool is_launch(uint32_t jobid) {
    return ORTE_LOCAL_JOBID(jobid) >= first_launch &&
           ORTE_LOCAL_JOBID(jobid) < first_launch + launch_numbers;
}

orte_node_t* make_node(const std::string& name, int slots) {
    orte_node_t* node = OBJ_NEW(orte_node_t);
    node->name = strdup(name.c_str());
    node->slots = slots;
    ORTE_FLAG_SET(node, ORTE_NODE_FLAG_SLOTS_GIVEN);
    return node;
}

// Without processes. The end of the application does not wait for it.
void make_launch_job(uint32_t jobid) {
    orte_job_t* job = OBJ_NEW(orte_job_t);
    job->jobid = jobid;
    job->originator = *ORTE_PROC_MY_NAME;  // else ORTE looks for nodes of its own accord
    ORTE_FLAG_SET(job, ORTE_JOB_FLAG_DO_NOT_MONITOR);
    auto* app = item<orte_app_context_t>(app_job()->apps, 0);  // where Open MPI is, on the node
    OBJ_RETAIN(app);
    opal_pointer_array_set_item(job->apps, 0, app);
    job->num_apps = 1;
    opal_hash_table_set_value_uint32(orte_job_data, jobid, job);
}

bool has_reported(NodeId daemon) {
    const orte_proc_t* object = daemon_object(daemon);
    return object && object->node && ORTE_FLAG_TEST(object->node, ORTE_NODE_FLAG_DAEMON_LAUNCHED);
}

}  // namespace

// --- in mpirun ---

Result<NewNode> Growth::start(const std::string& host, int slots,
                              std::function<void(const Status&)> runs) {
    if (starting_) return make_error(Code::busy, "start two daemons at the same time");
    orte_node_t* node = make_node(host, slots);
    node->state = ORTE_NODE_STATE_ADDED;
    node->index = opal_pointer_array_add(orte_node_pool, node);
    // Those that never reported count as if they had: ORTE waits until the numbers are the same.
    daemon_job()->num_reported = daemon_job()->num_procs;
    Starting starting;
    starting.node = {daemon_job()->num_procs, static_cast<uint32_t>(node->index), host, slots};
    starting.jobid = ORTE_CONSTRUCT_LOCAL_JOBID(ORTE_PROC_MY_NAME->jobid,
                                                first_launch + launches_++ % launch_numbers);
    make_launch_job(starting.jobid);
    starting.runs = std::move(runs);
    outside_.insert(starting.node.id);
    starting_ = std::move(starting);
    launch_daemons(starting_->jobid);
    if (node->daemon && node->daemon->name.vpid == starting_->node.id) return starting_->node;
    forget_job();
    starting_.reset();
    return make_error(Code::internal, "start a daemon on", host, "ORTE gave it no number");
}

// One that does not take part yet gets no broadcast, and mpirun ends without it.
void Growth::routes_planned() {
    daemons_.keep_out();
    if (starting_ && !has_reported(starting_->node.id)) lose_route(starting_->node.id);
}

void Growth::forget_job() {
    orte_job_t* job = orte_get_job_data_object(starting_->jobid);
    opal_hash_table_remove_value_uint32(orte_job_data, starting_->jobid);
    if (job) OBJ_RELEASE(job);
}

void Growth::over(const Status& status) {
    forget_job();
    auto runs = std::move(starting_->runs);
    starting_.reset();
    if (runs) runs(status);
}

bool Growth::failed(NodeId node) {
    if (!starting_ || starting_->node.id != node || orte_orteds_term_ordered ||
        orte_abnormal_term_ordered || orte_finalizing)
        return false;
    const orte_proc_t* daemon = daemon_object(node);
    const int status = daemon ? WEXITSTATUS(daemon->exit_code) : 0;
    const std::string name = starting_->node.name;
    daemons_.give_up(node);
    over(make_error(Code::peer_lost, "start a daemon on", name,
                    status != 0 ? fmt::format("what starts it (ssh) ended with status {}", status)
                                : std::string("it ended at once")));
    return true;
}

// One that runs without Ghost hears this, and no other message of ours.
void Growth::give_up(NodeId node) {
    if (has_reported(node)) {
        opal_buffer_t* order = OBJ_NEW(opal_buffer_t);
        const orte_daemon_cmd_flag_t end = ORTE_DAEMON_EXIT_CMD;
        opal_dss.pack(order, &end, 1, ORTE_DAEMON_CMD);
        orte_process_name_t name{ORTE_PROC_MY_NAME->jobid, node};
        if (orte_rml.send_buffer_nb(orte_mgmt_conduit, &name, order, ORTE_RML_TAG_DAEMON,
                                    orte_rml_send_callback, nullptr) != ORTE_SUCCESS)
            OBJ_RELEASE(order);
    }
    outside_.insert(node);
    if (!starting_ || starting_->node.id != node) return;
    forget_job();
    starting_.reset();
}

void Growth::stop() {
    if (starting_) Daemons::end_launcher(std::exchange(starting_, std::nullopt)->node.id);
}

namespace {

// So that every rank's place is in the message, and no mapper has a say.
void pack_job(opal_buffer_t* message, orte_job_t* job) {
    for (int i = 0; i < job->procs->size; ++i) {
        auto* rank = item<orte_proc_t>(job->procs, i);
        if (rank && rank->node && rank->node->daemon) rank->parent = rank->node->daemon->name.vpid;
    }
    orte_set_attribute(&job->attributes, ORTE_JOB_FULLY_DESCRIBED, ORTE_ATTR_GLOBAL, nullptr,
                       OPAL_BOOL);
    // The receiver counts the nodes of the map itself, from what is written here.
    const auto nodes = std::exchange(job->map->num_nodes, 0);
    opal_dss.pack(message, &job, 1, ORTE_JOB);
    job->map->num_nodes = nodes;
    orte_remove_attribute(&job->attributes, ORTE_JOB_FULLY_DESCRIBED);
}

// As orte/mca/odls/base packs it of jobs that run already (4.1.4).
void pack_spawned_jobs(opal_buffer_t* message) {
    opal_buffer_t* jobs = OBJ_NEW(opal_buffer_t);
    for_each_spawned_job([&](orte_job_t& spawned) {
        orte_job_t* job = &spawned;
        opal_buffer_t* one = OBJ_NEW(opal_buffer_t);
        opal_dss.pack(one, &job, 1, ORTE_JOB);
        for (int i = 0; i < job->procs->size; ++i)
            if (auto* guest = item<orte_proc_t>(job->procs, i))
                opal_dss.pack(one, &guest->parent, 1, ORTE_VPID);
        opal_dss.pack(jobs, &one, 1, OPAL_BUFFER);
        OBJ_RELEASE(one);
    });
    const int8_t there = 1;
    opal_dss.pack(message, &there, 1, OPAL_INT8);
    opal_dss.pack(message, &jobs, 1, OPAL_BUFFER);
    OBJ_RELEASE(jobs);
}

// The launch message of the application, as a broadcast that only this daemon gets
// (orte/mca/grpcomm/direct xcast_recv(), orte/mca/odls/base construct_child_list(), 4.1.4).
Status tell_of_job(NodeId daemon) {
    opal_buffer_t* message = OBJ_NEW(opal_buffer_t);
    const int8_t plain = 0, with_nodes = 1;
    orte_grpcomm_signature_t* everybody = wildcard_signature(ORTE_PROC_MY_NAME->jobid);
    const orte_rml_tag_t tag = ORTE_RML_TAG_DAEMON;
    const orte_daemon_cmd_flag_t launch = ORTE_DAEMON_ADD_LOCAL_PROCS;
    const char* known = nullptr;  // the list of nodes: it was on the daemon's command line
    opal_byte_object_t nothing{};
    opal_byte_object_t* contacts = &nothing;  // it has mpirun's, and reaches others through that
    opal_dss.pack(message, &plain, 1, OPAL_INT8);
    opal_dss.pack(message, &everybody, 1, ORTE_SIGNATURE);
    opal_dss.pack(message, &tag, 1, ORTE_RML_TAG);
    opal_dss.pack(message, &launch, 1, ORTE_DAEMON_CMD);
    opal_dss.pack(message, &known, 1, OPAL_STRING);
    opal_dss.pack(message, &with_nodes, 1, OPAL_INT8);
    int rc = orte_regx.encode_nodemap(message);
    opal_dss.pack(message, &contacts, 1, OPAL_BYTE_OBJECT);
    pack_spawned_jobs(message);
    pack_job(message, app_job());
    OBJ_RELEASE(everybody);
    orte_process_name_t name{ORTE_PROC_MY_NAME->jobid, daemon};
    if (rc == ORTE_SUCCESS)
        rc = orte_rml.send_buffer_nb(orte_coll_conduit, &name, message, ORTE_RML_TAG_XCAST,
                                     orte_rml_send_callback, nullptr);
    if (rc == ORTE_SUCCESS) return {};
    OBJ_RELEASE(message);
    return make_error(Code::internal, "tell of the job daemon", std::to_string(daemon),
                      fmt::format("error {} of ORTE's", rc));
}

}  // namespace

bool Growth::daemons_ready(uint32_t jobid) {
    if (!is_launch(jobid)) return false;
    if (!starting_ || jobid != starting_->jobid) return true;  // it was given up
    const NodeId node = starting_->node.id;
    if (!has_reported(node)) {
        // It was another one, which had been given up.
        --daemon_job()->num_reported;
        orte_get_job_data_object(jobid)->state = ORTE_JOB_STATE_DAEMONS_LAUNCHED;
        return true;
    }
    const Status told = tell_of_job(node);
    if (told.ok()) outside_.erase(node);
    over(told);
    return true;
}

// --- in a daemon ---

void learn_daemon(const NewNode& node) {
    orte_job_t* daemons = daemon_job();
    if (daemon_object(node.id)) return;
    orte_proc_t* daemon = OBJ_NEW(orte_proc_t);
    daemon->name = {ORTE_PROC_MY_NAME->jobid, node.id};
    daemon->state = ORTE_PROC_STATE_RUNNING;
    ORTE_FLAG_SET(daemon, ORTE_PROC_FLAG_ALIVE);
    orte_node_t* host = make_node(node.name, node.slots);
    const auto* first = item<orte_node_t>(orte_node_pool, 0);
    host->topology = first ? first->topology : nullptr;  // as of a launch message
    host->state = ORTE_NODE_STATE_UP;
    host->index = static_cast<int32_t>(node.id);  // as orte/mca/regx/base numbers them
    host->daemon = daemon;
    OBJ_RETAIN(daemon);
    daemon->node = host;
    OBJ_RETAIN(host);
    opal_pointer_array_set_item(orte_node_pool, static_cast<int>(node.place), host);
    opal_pointer_array_set_item(daemons->procs, static_cast<int>(node.id), daemon);
    daemons->num_procs = std::max<orte_vpid_t>(daemons->num_procs, node.id + 1);
    orte_process_info.num_procs = daemons->num_procs;
    orte_process_info.max_procs = std::max(orte_process_info.max_procs, daemons->num_procs);
    // Not of every tree that ORTE knows: each sets the daemon's parent, to which its fences go.
    for (const orte_rml_conduit_t conduit : {orte_mgmt_conduit, orte_coll_conduit})
        orte_routed.update_routing_plan(orte_rml.get_routed(conduit));
}

}  // namespace ghost::plugin::orte41
