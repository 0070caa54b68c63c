// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/state_hooks.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <span>

#include "base/exit_status.hpp"
#include "base/log.hpp"
#include "pmix-plugin/runtime/orte41/job.hpp"

namespace ghost::plugin::orte41 {

namespace {

struct Hook {
    orte_proc_state_t state;
    orte_state_cbfunc_t ours;
    orte_state_cbfunc_t theirs;
};

StateHandlers& handlers() {
    static StateHandlers the_handlers;
    return the_handlers;
}

void daemon_state(int fd, short flags, void* data) noexcept;
void error_state(int fd, short flags, void* data) noexcept;
void running_state(int fd, short flags, void* data) noexcept;
void ended_state(int fd, short flags, void* data) noexcept;

Hook hooks[] = {{ORTE_PROC_STATE_COMM_FAILED, daemon_state, nullptr},
                {ORTE_PROC_STATE_ERROR, error_state, nullptr},
                {ORTE_PROC_STATE_RUNNING, running_state, nullptr},
                {ORTE_PROC_STATE_TERMINATED, ended_state, nullptr}};

void launch_state(int fd, short flags, void* data) noexcept;
void reported_state(int fd, short flags, void* data) noexcept;
void ready_state(int fd, short flags, void* data) noexcept;
void map_state(int fd, short flags, void* data) noexcept;

// Of jobs; in mpirun only.
struct JobHook {
    orte_job_state_t state;
    orte_state_cbfunc_t ours;
    orte_state_cbfunc_t theirs;
};

JobHook job_hooks[] = {{ORTE_JOB_STATE_LAUNCH_DAEMONS, launch_state, nullptr},
                       {ORTE_JOB_STATE_DAEMONS_REPORTED, reported_state, nullptr},
                       {ORTE_JOB_STATE_VM_READY, ready_state, nullptr},
                       {ORTE_JOB_STATE_MAP, map_state, nullptr}};

orte_errmgr_base_module_abort_fn_t stock_abort = nullptr;

// ORTE ends this process where a connection to another daemon fails while it reads or writes
// (oob/tcp, oob_tcp_sendrecv.c), which is how the loss of a node shows if something is under way
// just then. Its end is heard of without that: by who reads, or by who waits for an answer.
__attribute__((format(printf, 2, 3))) void abort_or_go_on(int code, char* format, ...) noexcept {
    char text[1024];
    va_list more;
    va_start(more, format);
    std::vsnprintf(text, sizeof text, format, more);
    va_end(more);
    const bool of_connection =
        std::strstr(text, "FORCE-TERMINATE") && std::strstr(text, "oob_tcp_sendrecv.c");
    const bool ends = orte_orteds_term_ordered || orte_abnormal_term_ordered;
    if (of_connection && !ends && handlers().outlives_connections &&
        handlers().outlives_connections())
        return log::warning("a connection to another daemon has failed");
    char whole[] = "%s";
    stock_abort(code, whole, text);
}

bool ours_to_handle(const orte_state_caddy_t& caddy) {
    return caddy.name.jobid == ORTE_PROC_MY_NAME->jobid &&
           caddy.name.vpid != ORTE_PROC_MY_NAME->vpid && handlers().daemon_failed &&
           handlers().daemon_failed(caddy.name.vpid);
}

void take_or_pass(const Hook& hook, int fd, short flags, void* data) {
    auto* caddy = static_cast<orte_state_caddy_t*>(data);
    if (ours_to_handle(*caddy)) {
        OBJ_RELEASE(caddy);
    } else if (hook.theirs) {
        hook.theirs(fd, flags, data);
    }
}

void daemon_state(int fd, short flags, void* data) noexcept {
    take_or_pass(hooks[0], fd, flags, data);
}

// Of a rank that a signal has ended, or that has given up; not with its job.
bool is_lost_rank(const orte_state_caddy_t& caddy) {
    const bool ends_anyway =
        orte_abnormal_term_ordered || orte_job_term_ordered || orte_orteds_term_ordered;
    if (caddy.name.jobid != app_jobid() || ends_anyway) return false;
    const orte_proc_t* rank = rank_object(caddy.name.vpid);
    return caddy.proc_state == ORTE_PROC_STATE_ABORTED_BY_SIG ||
           (caddy.proc_state == ORTE_PROC_STATE_TERM_NON_ZERO && rank != nullptr &&
            rank->exit_code == lost_server_status);
}

void error_state(int fd, short flags, void* data) noexcept {
    const auto& caddy = *static_cast<orte_state_caddy_t*>(data);
    const RankId rank = caddy.name.vpid;
    const bool ours = caddy.name.jobid == app_jobid() && handlers().rank_failed;
    if (ours && handlers().rank_failed(rank, caddy.proc_state)) {
        auto* taken = static_cast<orte_state_caddy_t*>(data);
        OBJ_RELEASE(taken);
        return;
    }
    const bool lost = is_lost_rank(caddy);
    take_or_pass(hooks[1], fd, flags, data);  // releases the caddy
    if (lost && handlers().rank_lost) handlers().rank_lost(rank);
}

void running_state(int fd, short flags, void* data) noexcept {
    const orte_process_name_t name = static_cast<orte_state_caddy_t*>(data)->name;
    if (hooks[2].theirs) hooks[2].theirs(fd, flags, data);  // releases the caddy
    if (name.jobid == app_jobid() && handlers().rank_forked) handlers().rank_forked(name.vpid);
}

void ended_state(int fd, short flags, void* data) noexcept {
    const orte_process_name_t name = static_cast<orte_state_caddy_t*>(data)->name;
    const auto stock = [=] { hooks[3].theirs(fd, flags, data); };
    const bool ours = name.jobid == app_jobid() && handlers().rank_ended;
    ours ? handlers().rank_ended(name.vpid, stock) : stock();
}

void plan_after(const JobHook& hook, int fd, short flags, void* data) {
    hook.theirs(fd, flags, data);  // releases the caddy
    if (handlers().routes_planned) handlers().routes_planned();
}

void launch_state(int fd, short flags, void* data) noexcept {
    plan_after(job_hooks[0], fd, flags, data);
}

void reported_state(int fd, short flags, void* data) noexcept {
    plan_after(job_hooks[1], fd, flags, data);
}

void ready_state(int fd, short flags, void* data) noexcept {
    auto* caddy = static_cast<orte_state_caddy_t*>(data);
    if (handlers().daemons_ready && handlers().daemons_ready(caddy->jdata->jobid)) {
        OBJ_RELEASE(caddy);
    } else {
        job_hooks[2].theirs(fd, flags, data);
    }
}

void map_state(int fd, short flags, void* data) noexcept {
    const auto stock = [=] { job_hooks[3].theirs(fd, flags, data); };  // releases the caddy
    handlers().mapped ? handlers().mapped(stock) : stock();
}

orte_state_t* entry_of(orte_job_state_t wanted) {
    if (opal_list_is_empty(&orte_job_states)) return nullptr;
    orte_state_t* entry = nullptr;
    OPAL_LIST_FOREACH(entry, &orte_job_states, orte_state_t)
    if (entry->job_state == wanted) return entry;
    return nullptr;
}

orte_state_t* entry_of(orte_proc_state_t wanted) {
    if (opal_list_is_empty(&orte_proc_states)) return nullptr;
    orte_state_t* entry = nullptr;
    OPAL_LIST_FOREACH(entry, &orte_proc_states, orte_state_t)
    if (entry->proc_state == wanted) return entry;
    return nullptr;
}

template <typename Hook>
bool all_there(std::span<const Hook> wanted) {
    return std::ranges::all_of(wanted, [](const Hook& hook) { return entry_of(hook.state); });
}

template <typename Hook>
void put_in_front(std::span<Hook> wanted) {
    for (Hook& hook : wanted) {
        orte_state_t* entry = entry_of(hook.state);
        if (entry->cbfunc == hook.ours) continue;
        hook.theirs = entry->cbfunc;
        entry->cbfunc = hook.ours;
    }
}

}  // namespace

bool install_state_hooks(StateHandlers wanted) {
    const std::span<JobHook> of_jobs{job_hooks, ORTE_PROC_IS_HNP ? std::size(job_hooks) : 0};
    if (!all_there(std::span<const Hook>(hooks)) || !all_there(std::span<const JobHook>(of_jobs)))
        return false;
    handlers() = std::move(wanted);
    put_in_front(std::span<Hook>(hooks));
    put_in_front(of_jobs);
    if (orte_errmgr.abort != abort_or_go_on) {
        stock_abort = orte_errmgr.abort;
        orte_errmgr.abort = abort_or_go_on;
    }
    return true;
}

void launch_daemons(uint32_t jobid) {
    orte_job_t* job = orte_get_job_data_object(jobid);
    orte_state_caddy_t* caddy = OBJ_NEW(orte_state_caddy_t);
    OBJ_RETAIN(job);
    caddy->jdata = job;
    caddy->job_state = ORTE_JOB_STATE_LAUNCH_DAEMONS;
    // Its release takes back an event, which has to be one.
    opal_event_set(orte_event_base, &caddy->ev, -1, OPAL_EV_WRITE, launch_state, caddy);
    launch_state(-1, 0, caddy);
}

void remove_state_hooks() {
    handlers() = {};
}

}  // namespace ghost::plugin::orte41
