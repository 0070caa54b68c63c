/* SPDX-License-Identifier: BSD-3-Clause */
/* Component "ghost" of PMIx's framework pnet: the door by which Ghost comes into mpirun and every
 * daemon, for both run a PMIx server. A shell: plugin.cpp does the work, runtime/ the runtime's
 * part.
 */
#include "src/include/pmix_config.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pmix_common.h"
#include "src/include/pmix_globals.h"
#include "src/mca/pnet/pnet.h"
#include "src/server/pmix_server_ops.h"

#include "pmix-plugin/runtime/pmix/job_control.h"
#include "pmix-plugin/runtime/pmix/pmix_collectives.h"
#include "pmix-plugin/runtime/pmix/pmix_recovery.h"
#include "pmix-plugin/shells/plugin.hpp"

PMIX_EXPORT extern pmix_pnet_base_component_t pmix_mca_pnet_ghost_component;

/* ORTE answers every tool that connects with NOT_SUPPORTED, and libpmix 4.2.2 crashes the server in
 * that case (it unlinks a list item that is in no list). Taking every tool cures it; that the tool
 * runs under the same user has been checked before. */
static void take_tool(pmix_info_t* info, size_t ninfo, pmix_tool_connection_cbfunc_t done,
                      void* data) {
    static unsigned count; /* PMIx's progress thread only */
    char name[PMIX_MAX_NSLEN];
    pmix_proc_t tool;
    snprintf(name, sizeof name, "ghost-tool-%d-%u", getpid(), count++);
    PMIX_LOAD_PROCID(&tool, name, 0);
    for (size_t i = 0; i < ninfo; ++i) {
        if (PMIX_CHECK_KEY(&info[i], PMIX_NSPACE) && PMIX_STRING == info[i].value.type)
            PMIX_LOAD_NSPACE(tool.nspace, info[i].value.data.string);
        if (PMIX_CHECK_KEY(&info[i], PMIX_RANK) && PMIX_PROC_RANK == info[i].value.type)
            tool.rank = info[i].value.data.rank;
    }
    done(PMIX_SUCCESS, &tool, data);
}

static pmix_status_t module_init(void) {
    pmix_host_server.tool_connected = take_tool;
    ghost_pmix_install_job_control();
    ghost_pmix_install_collectives();
    const char* recover = getenv("OMPI_MCA_ghost_recover");
    if (recover && 0 != strcmp(recover, "none")) ghost_pmix_install_recovery();
    ghost_plugin_start();
    return PMIX_SUCCESS;
}

static void module_finalize(void) {
    ghost_plugin_stop();
}

static pmix_pnet_module_t module = {
    .name = "ghost", .init = module_init, .finalize = module_finalize};

static pmix_status_t component_open(void) {
    if (!pmix_globals.mypeer || !PMIX_PROC_IS_SERVER(&pmix_globals.mypeer->proc_type) ||
        !ghost_plugin_wanted())
        return PMIX_ERR_NOT_AVAILABLE;
    /* Its internal structures are used, and their layout is this version's. */
    if (!strstr(PMIx_Get_version(), "4.2.")) {
        ghost_plugin_refuse("PMIx", PMIx_Get_version(), "4.2");
        return PMIX_ERR_NOT_AVAILABLE;
    }
    return PMIX_SUCCESS;
}

static pmix_status_t component_query(pmix_mca_base_module_t** chosen, int* priority) {
    *chosen = (pmix_mca_base_module_t*)&module;
    *priority = 10;
    return PMIX_SUCCESS;
}

pmix_pnet_base_component_t pmix_mca_pnet_ghost_component = {
    .base = {PMIX_PNET_BASE_VERSION_1_0_0, .pmix_mca_component_name = "ghost",
             PMIX_MCA_BASE_MAKE_VERSION(component, PMIX_MAJOR_VERSION, PMIX_MINOR_VERSION,
                                        PMIX_RELEASE_VERSION),
             .pmix_mca_open_component = component_open,
             .pmix_mca_query_component = component_query},
    .data = {PMIX_MCA_BASE_METADATA_PARAM_CHECKPOINT}};
