// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/recovery.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>

#include "base/exit_status.hpp"
#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"
#include "pmix-plugin/runtime/orte41/output.h"
#include "pmix-plugin/runtime/orte41/rehome.hpp"
#include "pmix-plugin/runtime/pmix/pmix_server.h"

namespace ghost::plugin::orte41 {
namespace {

constexpr int64_t look_us = 2'000;
constexpr int64_t patience_us = 500'000;  // for a wrapper to end after its tree has
constexpr int orte_counts_signals_from = 128;

// 0: it ended in another way.
int killed_with(const orte_proc_t& child, int state) {
    const int code = child.exit_code;
    const bool signal =
        state == ORTE_PROC_STATE_ABORTED_BY_SIG &&
        (code == orte_counts_signals_from + SIGKILL || code == orte_counts_signals_from + SIGBUS);
    const bool gave_up = state == ORTE_PROC_STATE_TERM_NON_ZERO && code == lost_server_status;
    return signal || gave_up ? code : 0;
}

std::vector<orte_proc_t*> local_ranks() {
    std::vector<orte_proc_t*> out;
    for (int i = 0; i < orte_local_children->size; ++i) {
        auto* child = item<orte_proc_t>(orte_local_children, i);
        if (child && child->name.jobid == app_jobid()) out.push_back(child);
    }
    return out;
}

// It never was: ORTE waits for no end of its streams.
bool never_started(int state) {
    return state == ORTE_PROC_STATE_FAILED_TO_START || state == ORTE_PROC_STATE_FAILED_TO_LAUNCH;
}

// As far as ORTE's own bookkeeping of the rank goes it has just been mapped here
// (orte/mca/odls/base, launch_local()).
void as_mapped(orte_proc_t& rank) {
    ORTE_FLAG_SET(&rank, ORTE_PROC_FLAG_ALIVE);
    for (const auto flag :
         {ORTE_PROC_FLAG_REG, ORTE_PROC_FLAG_HAS_DEREG, ORTE_PROC_FLAG_IOF_COMPLETE,
          ORTE_PROC_FLAG_WAITPID, ORTE_PROC_FLAG_RECORDED, ORTE_PROC_FLAG_ABORT})
        ORTE_FLAG_UNSET(&rank, flag);
    rank.exit_code = 0;
}

// What a daemon does before it forks its first rank; one that had none has not done it.
Status set_up(orte_job_t& job, orte_app_context_t& app) {
    if (ORTE_FLAG_TEST(&app, ORTE_APP_FLAG_USED_ON_NODE)) return {};
    orte_odls_base_start_threads(&job);
    const int rc = orte_schizo.setup_fork(&job, &app);
    if (rc != ORTE_SUCCESS)
        return make_error(Code::internal, "set the program up", app.app,
                          fmt::format("error {}", rc));
    ORTE_FLAG_SET(&app, ORTE_APP_FLAG_USED_ON_NODE);
    opal_setenv("OMPI_MCA_orte_launch", "1", true, &app.env);
    return {};
}

void set_for_all(orte_job_t& job, const char* name, const std::string& value) {
    for (int i = 0; i < job.apps->size; ++i)
        if (auto* app = item<orte_app_context_t>(job.apps, i))
            opal_setenv(name, value.c_str(), true, &app->env);
}

// Fences and the like that have begun: whoever called them is gone.
void forget_calls() {
    std::vector<orte_grpcomm_coll_t*> calls;
    orte_grpcomm_coll_t* call = nullptr;
    OPAL_LIST_FOREACH(call, &orte_grpcomm_base.ongoing, orte_grpcomm_coll_t)
    if (call->sig && call->sig->sz > 0 && call->sig->signature[0].jobid == app_jobid())
        calls.push_back(call);
    for (auto* one : calls) opal_list_remove_item(&orte_grpcomm_base.ongoing, &one->super);
}

Status place(RankId rank, NodeId node) {
    orte_proc_t* moved = rank_object(rank);
    orte_proc_t* target = daemon_object(node);
    if (!moved || !moved->node || !target || !target->node)
        return make_error(Code::not_found, "start", fmt::format("rank {}", rank),
                          fmt::format("daemon {} is not known", node));
    const NodeId here = ORTE_PROC_MY_NAME->vpid;
    if (moved->parent != node) {
        if (moved->parent == here) remove_local_child(*moved);
        move_mapping(*moved, *target);
        if (node == here) add_local_child(*moved, 0);
    }
    ghost_output_readdress_input(app_jobid(), rank);
    return {};
}

}  // namespace

bool Recovery::swallow(RankId rank, int state) {
    const orte_proc_t* child = rank_object(rank);
    if (!child || !ORTE_FLAG_TEST(child, ORTE_PROC_FLAG_LOCAL) || let_go_.contains(rank))
        return false;
    const bool ends_anyway =
        orte_abnormal_term_ordered || orte_job_term_ordered || orte_orteds_term_ordered;
    if (ends_anyway) return false;
    if (!stopped_ && !(died_ && died_(rank, killed_with(*child, state)))) return false;
    log::info("rank {} has ended: the runtime is not told ({})", rank,
              orte_proc_state_to_str(state));
    gone_[rank] = state;
    return true;
}

void Recovery::let_end(RankId rank) {
    const auto found = gone_.find(rank);
    orte_proc_t* child = rank_object(rank);
    if (found == gone_.end() || !child) return;
    let_go_.insert(rank);
    ORTE_ACTIVATE_PROC_STATE(&child->name, found->second);
}

void Recovery::stop(const std::vector<NodeId>& lost, std::function<void(const Status&)> stopped) {
    for (const NodeId node : lost) {
        orte_proc_t* daemon = daemon_object(node);
        if (!ORTE_PROC_IS_HNP && daemon && ORTE_FLAG_TEST(daemon, ORTE_PROC_FLAG_ALIVE))
            count_as_lost(*daemon);
    }
    ghost_output_read_own_input(0);
    stopped_ = std::move(stopped);
    waited_us_ = 0;
    settled_ = false;
    if (!std::exchange(looking_, true)) look();
}

// Its wrapper was reaped, and all of its output is read.
bool Recovery::is_gone(RankId rank) const {
    const orte_proc_t& child = *rank_object(rank);
    const auto found = gone_.find(rank);
    if (found != gone_.end() && never_started(found->second)) return true;
    const bool ended = found != gone_.end() || ORTE_FLAG_TEST(&child, ORTE_PROC_FLAG_WAITPID) ||
                       (child.pid > 0 && ::kill(child.pid, 0) != 0 && errno == ESRCH);
    return ended && ORTE_FLAG_TEST(&child, ORTE_PROC_FLAG_IOF_COMPLETE);
}

void Recovery::kill_wrappers() const {
    for (const orte_proc_t* child : local_ranks()) {
        if (is_gone(child->name.vpid) || child->pid <= 0) continue;
        log::info("rank {}: its wrapper {} has not ended and is killed", child->name.vpid,
                  child->pid);
        ::kill(-child->pid, SIGKILL);
        ::kill(child->pid, SIGKILL);
    }
}

// Two looks have to agree: what ORTE has still to say of one that was reaped comes in between.
void Recovery::look() {
    const auto ranks = local_ranks();
    const bool all =
        std::ranges::all_of(ranks, [this](const auto* one) { return is_gone(one->name.vpid); });
    if (!all || !std::exchange(settled_, true)) {
        settled_ = all;
        waited_us_ += look_us;
        if (waited_us_ % patience_us == 0) kill_wrappers();
        return (void)loop_.after(look_us, [this] { look(); });
    }
    looking_ = false;
    const Status forgotten = forget_ranks();
    if (auto told = std::exchange(stopped_, nullptr)) told(forgotten);
}

Status Recovery::forget_ranks() const {
    for (const orte_proc_t* child : local_ranks())
        if (!gone_.contains(child->name.vpid) && ORTE_FLAG_TEST(child, ORTE_PROC_FLAG_WAITPID))
            return make_error(Code::refused, "start the job's ranks anew", "",
                              fmt::format("rank {} has ended by itself", child->name.vpid));
    const std::string space = app_name();
    for (const orte_proc_t* child : local_ranks())
        ghost_pmix_forget_rank(space.c_str(), child->name.vpid);
    const int calls = ghost_pmix_forget_calls(space.c_str());
    log::debug("{} open calls are forgotten", calls);
    return {};
}

Status Recovery::start(const RuntimeAdapter::Births& births) {
    orte_job_t* job = app_job();
    if (!job || !job->map) return make_error(Code::not_found, "start ranks of", "the job");
    forget_calls();
    gone_.clear();
    let_go_.clear();
    set_for_all(*job, "GHOST_LIFE", births.life);
    set_for_all(*job, "GHOST_RESTART", births.snapshot);
    for (const auto& [rank, node] : births.places) GHOST_TRY(place(rank, node));
    input_of_ = births.input_of;
    input_ended_ = births.input_ended;
    const auto ranks = local_ranks();
    for (orte_proc_t* rank : ranks) {
        as_mapped(*rank);
        ghost_output_renew_input(app_jobid(), rank->name.vpid);
        if (ghost_pmix_join(app_name().c_str(), rank->name.vpid, rank) < 0)
            return make_error(Code::internal, "register with the PMIx server",
                              fmt::format("rank {}", rank->name.vpid));
    }
    // As often as there are ranks here they report to mpirun, which has heard it.
    if (!ORTE_PROC_IS_HNP)
        job->num_launched = job->num_reported = static_cast<orte_vpid_t>(job->num_local_procs);
    orte_remove_attribute(&job->attributes, ORTE_JOB_FAIL_NOTIFIED);
    for (orte_proc_t* rank : ranks) {
        auto* app = item<orte_app_context_t>(job->apps, static_cast<int>(rank->app_idx));
        if (!app) return make_error(Code::not_found, "start", "a program of the job");
        GHOST_TRY(set_up(*job, *app));
        if (const int rc = orte_odls.restart_proc(rank); rc != ORTE_SUCCESS)
            return make_error(Code::internal, "start", fmt::format("rank {}", rank->name.vpid),
                              fmt::format("error {}", rc));
    }
    return {};
}

// What it was given since the snapshot, and the end of the input, was told to whoever was there
// before.
void Recovery::born(RankId rank) {
    if (rank == input_of_)
        input_.expect(rank, 0);
    else if (input_ended_)
        ghost_output_give_input(app_jobid(), rank, "", 0, 1);
}

}  // namespace ghost::plugin::orte41
