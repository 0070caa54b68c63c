// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/job.hpp"

#include <cstdlib>
#include <cstring>
#include <sstream>

namespace ghost::plugin::orte41 {

orte_jobid_t app_jobid() {
    return ORTE_CONSTRUCT_LOCAL_JOBID(ORTE_PROC_MY_NAME->jobid, 1);
}

orte_job_t* app_job() {
    return orte_get_job_data_object(app_jobid());
}

orte_job_t* daemon_job() {
    return orte_get_job_data_object(ORTE_PROC_MY_NAME->jobid);
}

orte_proc_t* rank_object(RankId rank) {
    orte_job_t* job = app_job();
    return job ? item<orte_proc_t>(job->procs, static_cast<int>(rank)) : nullptr;
}

orte_proc_t* daemon_object(NodeId node) {
    orte_job_t* job = daemon_job();
    return job ? item<orte_proc_t>(job->procs, static_cast<int>(node)) : nullptr;
}

std::string app_name() {
    return app_job() ? std::to_string(app_jobid()) : std::string();
}

bool app_running() {
    const orte_job_t* job = app_job();
    if (!job || !job->map || orte_finalizing || orte_orteds_term_ordered) return false;
    // A daemon does not follow the job's state: there, having ranks to know of is enough.
    if (!ORTE_PROC_IS_HNP) return true;
    return job->state >= ORTE_JOB_STATE_RUNNING && job->state < ORTE_JOB_STATE_UNTERMINATED &&
           job->num_terminated < job->num_procs;
}

std::vector<NodeInfo> list_nodes() {
    std::vector<NodeInfo> nodes;
    orte_job_t* job = daemon_job();
    for (int i = 0; job && i < job->procs->size; ++i) {
        const auto* daemon = item<orte_proc_t>(job->procs, i);
        if (!daemon) continue;
        NodeInfo node;
        node.id = daemon->name.vpid;
        if (daemon->node && daemon->node->name) node.name = daemon->node->name;
        node.alive = ORTE_FLAG_TEST(daemon, ORTE_PROC_FLAG_ALIVE) ||
                     daemon->name.vpid == ORTE_PROC_MY_NAME->vpid;
        nodes.push_back(node);
    }
    return nodes;
}

namespace {

// It registers with its PMIx server in MPI_Init. mpirun hears it of every rank; a daemon knows it
// of its own and takes it for granted of others.
RankLife life_of(const orte_proc_t& rank) {
    if (rank.state >= ORTE_PROC_STATE_UNTERMINATED) return RankLife::ended;
    if (ORTE_FLAG_TEST(&rank, ORTE_PROC_FLAG_WAITPID)) return RankLife::ended;
    const bool told = ORTE_PROC_IS_HNP || ORTE_FLAG_TEST(&rank, ORTE_PROC_FLAG_LOCAL);
    const bool registered =
        rank.state == ORTE_PROC_STATE_REGISTERED ||
        (rank.state == ORTE_PROC_STATE_RUNNING && ORTE_FLAG_TEST(&rank, ORTE_PROC_FLAG_REG));
    if (told && !registered) return RankLife::starting;
    return app_running() ? RankLife::running : RankLife::ended;
}

}  // namespace

std::vector<RankInfo> list_ranks() {
    std::vector<RankInfo> ranks;
    orte_job_t* job = app_job();
    for (int i = 0; job && i < job->procs->size; ++i) {
        const auto* object = item<orte_proc_t>(job->procs, i);
        if (!object) continue;
        RankInfo rank;
        rank.rank = object->name.vpid;
        if (object->node && object->node->daemon) rank.node = object->node->daemon->name.vpid;
        if (ORTE_FLAG_TEST(object, ORTE_PROC_FLAG_LOCAL)) rank.pid = object->pid;
        rank.life = life_of(*object);
        ranks.push_back(rank);
    }
    return ranks;
}

void for_each_spawned_job(const std::function<void(orte_job_t&)>& act) {
    uint32_t id = 0;
    void *job = nullptr, *place = nullptr;
    int rc = opal_hash_table_get_first_key_uint32(orte_job_data, &id, &job, &place);
    while (rc == OPAL_SUCCESS) {
        auto* other = static_cast<orte_job_t*>(job);
        const bool spawned =
            other && other->jobid != app_jobid() && other->jobid != ORTE_PROC_MY_NAME->jobid;
        if (spawned && other->state < ORTE_JOB_STATE_UNTERMINATED &&
            other->num_terminated < other->num_procs)
            act(*other);
        rc = opal_hash_table_get_next_key_uint32(orte_job_data, &id, &job, place, &place);
    }
}

size_t count_guests() {
    size_t guests = 0;
    for_each_spawned_job([&](orte_job_t& job) { guests += job.num_procs - job.num_terminated; });
    return guests;
}

size_t guests_on(NodeId node) {
    size_t guests = 0;
    for_each_spawned_job([&](orte_job_t& job) {
        for (int i = 0; i < job.procs->size; ++i) {
            const auto* guest = item<orte_proc_t>(job.procs, i);
            const bool there = guest && guest->state < ORTE_PROC_STATE_UNTERMINATED &&
                               guest->node && guest->node->daemon &&
                               guest->node->daemon->name.vpid == node;
            guests += there;
        }
    });
    return guests;
}

std::optional<NodeId> find_node_named(const std::vector<NodeInfo>& nodes, const std::string& name) {
    const auto host_of = [](const std::string& one) { return one.substr(0, one.find('.')); };
    std::optional<NodeId> found;
    int best = 0;
    for (const NodeInfo& node : nodes) {
        const int like = node.name == name ? 2 : host_of(node.name) == host_of(name) ? 1 : 0;
        const int match = like == 0 ? 0 : like + (node.alive ? 2 : 0);
        if (match <= best) continue;
        best = match;
        found = node.id;
    }
    return found;
}

int slots_of(NodeId node) {
    const orte_proc_t* daemon = daemon_object(node);
    return daemon && daemon->node ? daemon->node->slots : 0;
}

// The signature that its daemon has sent is like "2N:2S:2L3:16L2:16L1:16C:32H:x86_64:le"
// (opal_hwloc_base_get_topo_signature(), 4.1.4).
int cores_of(NodeId node) {
    const orte_proc_t* daemon = daemon_object(node);
    const auto* topology = daemon && daemon->node ? daemon->node->topology : nullptr;
    std::istringstream parts(topology && topology->sig ? topology->sig : "");
    for (std::string part; std::getline(parts, part, ':');)
        if (part.size() > 1 && part.back() == 'C') return std::atoi(part.c_str());
    return 0;
}

std::string app_variable(const std::string& name) {
    orte_job_t* job = app_job();
    for (int i = 0; job && i < job->apps->size; ++i) {
        const auto* app = item<orte_app_context_t>(job->apps, i);
        for (char** entry = app ? app->env : nullptr; entry && *entry; ++entry)
            if (std::strncmp(*entry, name.c_str(), name.size()) == 0 &&
                (*entry)[name.size()] == '=')
                return *entry + name.size() + 1;
    }
    return {};
}

std::optional<NodeId> way_to(NodeId daemon) {
    orte_process_name_t name{ORTE_PROC_MY_NAME->jobid, daemon};
    const auto next = orte_routed.get_route(orte_rml.get_routed(orte_coll_conduit), &name).vpid;
    const NodeId here = ORTE_PROC_MY_NAME->vpid;  // what it is told of one that it has lost
    const bool none = next == ORTE_VPID_INVALID || (next == here && daemon != here);
    return none ? std::nullopt : std::optional<NodeId>(next);
}

void lose_route(NodeId daemon) {
    orte_process_name_t name{ORTE_PROC_MY_NAME->jobid, daemon};
    for (const orte_rml_conduit_t conduit : {orte_mgmt_conduit, orte_coll_conduit})
        orte_routed.route_lost(orte_rml.get_routed(conduit), &name);
}

void count_as_lost(orte_proc_t& daemon) {
    lose_route(daemon.name.vpid);
    ORTE_FLAG_UNSET(&daemon, ORTE_PROC_FLAG_ALIVE);
    daemon.state = ORTE_PROC_STATE_COMM_FAILED;
}

orte_grpcomm_signature_t* wildcard_signature(orte_jobid_t job) {
    orte_grpcomm_signature_t* signature = OBJ_NEW(orte_grpcomm_signature_t);
    signature->signature =
        static_cast<orte_process_name_t*>(calloc(1, sizeof(orte_process_name_t)));
    signature->signature[0].jobid = job;
    signature->signature[0].vpid = ORTE_VPID_WILDCARD;
    signature->sz = 1;
    return signature;
}

}  // namespace ghost::plugin::orte41
