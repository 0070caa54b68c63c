/* See pmix_collectives.h. Facts used here: libpmix 4.2.2 (src/server/pmix_server_ops.c) sets
 * host_called before it calls the host, gives it the tracker as its data, and looks at that flag
 * again only when the next participant calls; Open MPI 4.1.4 makes PMIx_Disconnect and PMIx_Fence a
 * grpcomm allgather among the daemons of the participants, and PMIx_Connect no collective at all
 * (orte/orted/pmix/pmix_server_dyn.c, pmix_server_fence.c). */
#include "pmix-plugin/orte4/pmix_collectives.h"

#include <stdlib.h>
#include <string.h>

static pmix_server_fencenb_fn_t stock_fence;
static pmix_server_connect_fn_t stock_connect;
static pmix_server_disconnect_fn_t stock_disconnect;

static struct {
    int active;
    pmix_proc_t rank;
} expected;

int ghost_pmix_names(const pmix_server_trkr_t* tracker, const char* space, unsigned rank) {
    for (size_t i = 0; i < tracker->npcs; ++i)
        if (tracker->pcs[i].rank == rank && 0 == strcmp(tracker->pcs[i].nspace, space)) return 1;
    return 0;
}

/* True: it is not to be contributed to now. */
static int hold_back(pmix_server_trkr_t* tracker) {
    if (!expected.active || !ghost_pmix_names(tracker, expected.rank.nspace, expected.rank.rank))
        return 0;
    tracker->host_called = false;
    return 1;
}

/* Data is collected again when the rank calls; without it (the rank does not come) it is fetched
 * from here when somebody asks for it. */
static pmix_status_t fence(const pmix_proc_t procs[], size_t nprocs, const pmix_info_t info[],
                           size_t ninfo, char* data, size_t ndata, pmix_modex_cbfunc_t done,
                           void* given) {
    if (!hold_back(given)) return stock_fence(procs, nprocs, info, ninfo, data, ndata, done, given);
    free(data);
    return PMIX_SUCCESS;
}

static pmix_status_t disconnect(const pmix_proc_t procs[], size_t nprocs, const pmix_info_t info[],
                                size_t ninfo, pmix_op_cbfunc_t done, void* given) {
    if (hold_back(given)) return PMIX_SUCCESS;
    return stock_disconnect(procs, nprocs, info, ninfo, done, given);
}

/* The daemons know all jobs of their own family, and no other. Whole jobs have fences of their own.
 */
static int all_are_ours(const pmix_proc_t procs[], size_t nprocs) {
    const unsigned long family = strtoul(pmix_globals.myid.nspace, NULL, 10) >> 16;
    for (size_t i = 0; i < nprocs; ++i)
        if (strtoul(procs[i].nspace, NULL, 10) >> 16 != family || PMIX_RANK_VALID < procs[i].rank)
            return 0;
    return family != 0;
}

typedef struct {
    const pmix_proc_t* procs; /* the tracker's, as what follows */
    const pmix_info_t* info;
    size_t nprocs, ninfo;
    pmix_op_cbfunc_t done;
    void* tracker;
} connect_t;

static void all_have_called(pmix_status_t status, const char* data, size_t ndata, void* given,
                            pmix_release_cbfunc_t release, void* release_data) {
    connect_t* call = given;
    (void)data, (void)ndata;
    if (release) release(release_data);
    if (PMIX_SUCCESS == status)
        status = stock_connect(call->procs, call->nprocs, call->info, call->ninfo, call->done,
                               call->tracker);
    else
        call->done(status, call->tracker);
    if (PMIX_OPERATION_SUCCEEDED == status) call->done(PMIX_SUCCESS, call->tracker);
    free(call);
}

static pmix_status_t connect_all(const pmix_proc_t procs[], size_t nprocs, const pmix_info_t info[],
                                 size_t ninfo, pmix_op_cbfunc_t done, void* given) {
    if (hold_back(given)) return PMIX_SUCCESS;
    if (!all_are_ours(procs, nprocs)) return stock_connect(procs, nprocs, info, ninfo, done, given);
    connect_t* call = malloc(sizeof *call);
    if (!call) return PMIX_ERR_NOMEM;
    *call = (connect_t){procs, info, nprocs, ninfo, done, given};
    const pmix_status_t rc = stock_fence(procs, nprocs, NULL, 0, NULL, 0, all_have_called, call);
    if (PMIX_SUCCESS != rc) free(call);
    return rc;
}

void ghost_pmix_install_collectives(void) {
    if (fence == pmix_host_server.fence_nb || !pmix_host_server.fence_nb ||
        !pmix_host_server.connect || !pmix_host_server.disconnect)
        return;
    stock_fence = pmix_host_server.fence_nb;
    stock_connect = pmix_host_server.connect;
    stock_disconnect = pmix_host_server.disconnect;
    pmix_host_server.fence_nb = fence;
    pmix_host_server.connect = connect_all;
    pmix_host_server.disconnect = disconnect;
}

void ghost_pmix_contribute_if_due(pmix_server_trkr_t* tracker) {
    pmix_status_t rc = PMIX_SUCCESS;
    if (tracker->host_called || tracker->local || !tracker->def_complete || 0 == tracker->nlocal ||
        pmix_list_get_size(&tracker->local_cbs) != tracker->nlocal)
        return;
    tracker->host_called = true;
    if (PMIX_FENCENB_CMD == tracker->type)
        rc = pmix_host_server.fence_nb(tracker->pcs, tracker->npcs, tracker->info, tracker->ninfo,
                                       NULL, 0, tracker->modexcbfunc, tracker);
    else if (PMIX_CONNECTNB_CMD == tracker->type)
        rc = pmix_host_server.connect(tracker->pcs, tracker->npcs, tracker->info, tracker->ninfo,
                                      tracker->op_cbfunc, tracker);
    else if (PMIX_DISCONNECTNB_CMD == tracker->type)
        rc = pmix_host_server.disconnect(tracker->pcs, tracker->npcs, tracker->info, tracker->ninfo,
                                         tracker->op_cbfunc, tracker);
    if (PMIX_SUCCESS == rc) return;
    tracker->host_called = false; /* it will not answer */
    if (PMIX_OPERATION_SUCCEEDED == rc) rc = PMIX_SUCCESS;
    if (PMIX_FENCENB_CMD == tracker->type)
        tracker->modexcbfunc(rc, NULL, 0, tracker, NULL, NULL);
    else
        tracker->op_cbfunc(rc, tracker);
}

void ghost_pmix_expect_rank(const char* space, unsigned rank) {
    expected.active = 1;
    PMIX_LOAD_PROCID(&expected.rank, space, rank);
}

void ghost_pmix_expect_nobody(void) {
    pmix_server_trkr_t *tracker, *next;
    if (!expected.active) return;
    expected.active = 0;
    PMIX_LIST_FOREACH_SAFE(tracker, next, &pmix_server_globals.collectives, pmix_server_trkr_t)
    if (ghost_pmix_names(tracker, expected.rank.nspace, expected.rank.rank))
        ghost_pmix_contribute_if_due(tracker);
}
