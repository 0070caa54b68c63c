#define _GNU_SOURCE
#include "pmix-plugin/orte4/output.h"

#include <dlfcn.h>
#include <link.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "orte_config.h"

#include "orte/constants.h"
#include "orte/mca/iof/base/base.h"
#include "orte/mca/iof/iof.h"
#include "orte/runtime/orte_globals.h"

/* Both of ORTE's components begin so (orte/mca/iof/hnp/iof_hnp.h, orted/iof_orted.h); their own
 * headers are not installed, and the framework has no call that tells a rank's streams. */
typedef struct {
    orte_iof_base_component_t super;
    opal_list_t procs;
} iof_component_t;

static const char* component_name(void) {
    return ORTE_PROC_IS_HNP ? "mca_iof_hnp" : "mca_iof_orted";
}

static int open_if_component(struct dl_phdr_info* info, size_t size, void* library) {
    char file[64];
    const char* base = strrchr(info->dlpi_name, '/');
    (void)size;
    snprintf(file, sizeof file, "/%s.so", component_name());
    if (!base || strcmp(base, file)) return 0;
    *(void**)library = dlopen(info->dlpi_name, RTLD_NOLOAD | RTLD_NOW);
    return 1;
}

static iof_component_t* find_component(void) {
    static iof_component_t* component;
    if (!component) {
        void* library = NULL;
        char symbol[64];
        dl_iterate_phdr(open_if_component, &library);
        snprintf(symbol, sizeof symbol, "%s_component", component_name());
        if (library) component = dlsym(library, symbol);
    }
    return component;
}

static orte_iof_proc_t* find_streams(unsigned job, unsigned rank) {
    iof_component_t* component = find_component();
    orte_iof_proc_t* streams;
    if (!component) return NULL;
    OPAL_LIST_FOREACH(streams, &component->procs, orte_iof_proc_t)
    if (streams->name.jobid == job && streams->name.vpid == rank) return streams;
    return NULL;
}

static int readable(const orte_iof_read_event_t* stream) {
    if (!stream) return 0;
    struct pollfd waiting = {stream->fd, POLLIN, 0};
    return poll(&waiting, 1, 0) > 0 && (waiting.revents & POLLIN);
}

int ghost_output_pending(unsigned job, unsigned rank) {
    const orte_iof_proc_t* streams = find_streams(job, rank);
    return streams && (readable(streams->revstdout) || readable(streams->revstderr));
}

static void drop_input(orte_iof_proc_t* streams) {
    if (streams && streams->stdinev) OBJ_RELEASE(streams->stdinev);
    if (streams) streams->stdinev = NULL;
}

void ghost_output_close(unsigned job, unsigned rank) {
    const orte_process_name_t name = {job, rank};
    orte_iof_proc_t* streams = find_streams(job, rank);
    if (!streams) return;
    if (!ORTE_PROC_IS_HNP || !streams->stdinev) {
        orte_iof.close(&name, ORTE_IOF_STDALL);
        return;
    }
    /* mpirun's read event of its own standard input points to this very object: it has to stay,
     * with a sink that names the rank's new daemon (push looks that up) and no local descriptor. */
    drop_input(streams);
    orte_iof.push(&name, ORTE_IOF_STDIN, 0);
    orte_iof.close(&name, ORTE_IOF_STDOUT | ORTE_IOF_STDERR);
}

int ghost_output_open(unsigned job, unsigned rank, int in, int out, int err) {
    const orte_process_name_t name = {job, rank};
    drop_input(find_streams(job, rank)); /* mpirun: the sink that named the old daemon */
    int rc = orte_iof.pull(&name, ORTE_IOF_STDIN, in);
    if (ORTE_SUCCESS == rc) rc = orte_iof.push(&name, ORTE_IOF_STDOUT, out);
    if (ORTE_SUCCESS == rc) rc = orte_iof.push(&name, ORTE_IOF_STDERR, err);
    return rc;
}

void ghost_output_redirect_input(unsigned job, unsigned rank, unsigned to) {
    orte_iof_proc_t* streams = find_streams(job, rank);
    if (!ORTE_PROC_IS_HNP || to == ORTE_PROC_MY_NAME->vpid) return;
    if (streams && streams->stdinev) streams->stdinev->daemon.vpid = to;
}
