// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/state_hooks.hpp"

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

void error_state(int fd, short flags, void* data) noexcept {
    take_or_pass(hooks[1], fd, flags, data);
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

orte_state_t* entry_of(orte_proc_state_t wanted) {
    if (opal_list_is_empty(&orte_proc_states)) return nullptr;
    orte_state_t* entry = nullptr;
    OPAL_LIST_FOREACH(entry, &orte_proc_states, orte_state_t)
    if (entry->proc_state == wanted) return entry;
    return nullptr;
}

}  // namespace

bool install_state_hooks(StateHandlers wanted) {
    for (const Hook& hook : hooks)
        if (!entry_of(hook.state)) return false;
    handlers() = std::move(wanted);
    for (Hook& hook : hooks) {
        orte_state_t* entry = entry_of(hook.state);
        if (entry->cbfunc == hook.ours) continue;
        hook.theirs = entry->cbfunc;
        entry->cbfunc = hook.ours;
    }
    return true;
}

void remove_state_hooks() {
    handlers() = {};
}

}  // namespace ghost::plugin::orte41
