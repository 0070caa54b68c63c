/* SPDX-License-Identifier: BSD-3-Clause */
/* Component "ghost" of ORTE's framework schizo, loaded by mpirun and every daemon: the place from
 * which a job is told, before any other component is chosen, that its ranks are to be movable.
 * A shell: schizo_bridge.cpp does the work.
 *
 * mpirun opens schizo (register) before it knows what it is and calls define_cli next, when the
 * --mca pairs are in its environment; a daemon knows already at register (orte/runtime/orte_init.c,
 * orte/orted/orted_submit.c of Open MPI 4.1). */
#define _GNU_SOURCE
#include "orte_config.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "opal/mca/base/base.h"
#include "opal/mca/base/mca_base_var.h"
#include "opal/util/opal_environ.h"
#include "opal/util/show_help.h"
#include "orte/constants.h"
#include "orte/mca/mca.h"
#include "orte/mca/plm/base/base.h"
#include "orte/mca/schizo/schizo.h"
#include "orte/runtime/orte_globals.h"
#include "orte/runtime/runtime.h"
#include "pmix-plugin/shells/info_ghost.h"
#include "pmix-plugin/shells/schizo_bridge.h"

/* The job the user started is job 1 of the family; only its ranks move. Others are guests, spawned
 * by its ranks or by each other. */
#define FIRST_JOB(jobid) (1 == ORTE_LOCAL_JOBID(jobid))

ORTE_MODULE_DECLSPEC extern orte_schizo_base_component_t mca_schizo_ghost_component;

static const char* register_parameter(const char* name, const char* fallback, const char* meaning) {
    static char* values[32];
    static int used;
    char** value = &values[used < 31 ? used++ : 31];
    *value = (char*)fallback;
    /* "ghost_verbose" is variable "verbose" of a framework "ghost", "ghost" its selection. */
    const char* variable = strchr(name, '_');
    mca_base_var_register("ghost", "ghost", NULL, variable ? variable + 1 : NULL, meaning,
                          MCA_BASE_VAR_TYPE_STRING, NULL, 0, MCA_BASE_VAR_FLAG_SETTABLE,
                          OPAL_INFO_LVL_1, MCA_BASE_VAR_SCOPE_ALL, value);
    return *value;
}

/* What the user has chosen of plm_rsh_agent, in the environment or in a parameter file: that
 * component is opened later, and then finds what we have put into the environment. */
static const char* launch_agent_of_user(void) {
    static char* value;
    value = NULL;
    /* DWG: as the component registers it, which is unloaded with its group */
    const int at = mca_base_var_register("orte", "plm", "rsh", "agent", "",
                                         MCA_BASE_VAR_TYPE_STRING, NULL, 0, MCA_BASE_VAR_FLAG_DWG,
                                         OPAL_INFO_LVL_2, MCA_BASE_VAR_SCOPE_READONLY, &value);
    const char* out = value ? strdup(value) : NULL;
    if (0 <= at) mca_base_var_deregister(at);
    return out;
}

/* Of what belongs to ranks, which mpirun itself does not read. */
static const char* value_in_files(const char* name) {
    static char* value;
    value = NULL;
    const int at = mca_base_var_register("ompi", name, NULL, NULL, "", MCA_BASE_VAR_TYPE_STRING,
                                         NULL, 0, MCA_BASE_VAR_FLAG_DWG, OPAL_INFO_LVL_2,
                                         MCA_BASE_VAR_SCOPE_READONLY, &value);
    const mca_base_var_t* found = NULL;
    const char* out = NULL;
    if (0 <= at && OPAL_SUCCESS == mca_base_var_get(at, &found) && value &&
        MCA_BASE_VAR_SOURCE_FILE == found->mbv_source)
        out = strdup(value);
    if (0 <= at) mca_base_var_deregister(at);
    return out;
}

static void take_secret(int decides) {
    const char* why = ghost_schizo_secret(decides, launch_agent_of_user);
    if (!why) return;
    opal_show_help("help-ghost.txt", "no secret", true, orte_process_info.nodename, why);
    exit(1);
}

/* Daemons are started by plm rsh, or there are none. */
static int starts_daemons_by_agent(void) {
    mca_base_component_list_item_t* one;
    OPAL_LIST_FOREACH(one, &orte_plm_base_framework.framework_components,
                      mca_base_component_list_item_t) {
        const char* name = one->cli_component->mca_component_name;
        if (0 != strcmp(name, "rsh") && 0 != strcmp(name, "isolated")) return 0;
    }
    return 1;
}

static void prepare(int decides) {
    Dl_info self = {0};
    dladdr((void*)&mca_schizo_ghost_component, &self);
    const char* why = ghost_schizo_prepare(decides, self.dli_fname, orte_version_string,
                                           value_in_files);
    opal_show_help_add_dir(ghost_schizo_help_dir());
    const char* instead = ghost_schizo_instead();
    if (instead) opal_show_help("help-ghost.txt", "taken instead", true, instead);
    const char* lacks = decides ? ghost_schizo_lacks_privilege() : NULL;
    if (lacks) opal_show_help("help-ghost.txt", "needs user namespaces", true, lacks);
    if (!why) return take_secret(decides);
    opal_show_help("help-ghost.txt", ghost_schizo_topic(), true, why);
    if (ghost_schizo_ends()) exit(1);
}

static void set_variable(void* env, const char* name, const char* value) {
    opal_setenv(name, value, true, (char***)env);
}

static int define_cli(opal_cmd_line_t* cli) {
    (void)cli;
    prepare(1);
    return ORTE_SUCCESS;
}

static int parse_env(char* path, opal_cmd_line_t* cli, char** from, char*** to) {
    (void)path, (void)cli, (void)from;
    ghost_schizo_app_env(starts_daemons_by_agent(), to, set_variable);
    return ORTE_SUCCESS;
}

static void setup_guest(orte_job_t* job, char*** env) {
    const orte_jobid_t host = ORTE_CONSTRUCT_LOCAL_JOBID(job->jobid, 1);
    orte_job_t* first = orte_get_job_data_object(host);
    orte_app_context_t* app =
        first ? (orte_app_context_t*)opal_pointer_array_get_item(first->apps, 0) : NULL;
    if (app)
        ghost_schizo_guest_env(host, app->env, ORTE_PROC_MY_NAME->vpid, orte_process_info.nodename,
                               env, set_variable);
}

static int setup_child(orte_job_t* job, orte_proc_t* child, orte_app_context_t* app, char*** env) {
    if (!FIRST_JOB(job->jobid))
        setup_guest(job, env);
    else
        ghost_schizo_child_env(job->jobid, child->name.vpid, app->env, ORTE_PROC_MY_NAME->vpid,
                               orte_process_info.nodename, env, set_variable);
    opal_unsetenv("GHOST_SECRET_KEY", env);
    opal_unsetenv("GHOST_SECRET_PLACE", env);
    opal_unsetenv("OMPI_MCA_ghost_secret_descriptor", env);
    return ORTE_SUCCESS;
}

static orte_schizo_base_module_t module = {
    .define_cli = define_cli, .parse_env = parse_env, .setup_child = setup_child};

static int component_register(void) {
    ghost_schizo_parameters(register_parameter);
    ghost_info_if_asked();
    if (ORTE_PROC_IS_DAEMON) prepare(0);
    return ORTE_SUCCESS;
}

static int component_query(mca_base_module_t** chosen, int* priority) {
    if (ORTE_PROC_IS_APP) return ORTE_ERROR;
    *chosen = (mca_base_module_t*)&module;
    *priority = 10;
    return ORTE_SUCCESS;
}

orte_schizo_base_component_t mca_schizo_ghost_component = {
    .base_version = {MCA_SCHIZO_BASE_VERSION_1_0_0, .mca_component_name = "ghost",
                     MCA_BASE_MAKE_VERSION(component, 4, 1, 0),
                     .mca_query_component = component_query,
                     .mca_register_component_params = component_register},
    .base_data = {MCA_BASE_METADATA_PARAM_CHECKPOINT}};
