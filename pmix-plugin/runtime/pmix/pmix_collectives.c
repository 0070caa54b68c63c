/* SPDX-License-Identifier: BSD-3-Clause */
/* See pmix_collectives.h. Facts used here: libpmix 4.2.2 (src/server/pmix_server_ops.c) sets
 * host_called before it calls the host, gives it the tracker as its data, and looks at that flag
 * again only when the next participant calls; Open MPI 4.1.4 makes PMIx_Disconnect and PMIx_Fence a
 * grpcomm allgather among the daemons of the participants, and PMIx_Connect no collective at all
 * (orte/orted/pmix/pmix_server_dyn.c, pmix_server_fence.c). */
#include "pmix-plugin/runtime/pmix/pmix_collectives.h"
#include "pmix-plugin/runtime/pmix/pmix_recovery.h"

#include <stdlib.h>
#include <string.h>

static pmix_server_fencenb_fn_t stock_fence;
static pmix_server_connect_fn_t stock_connect;
static pmix_server_disconnect_fn_t stock_disconnect;

/* Ranks that are about to come here: as many as moves to this node are at that point. */
static struct {
    pmix_proc_t* ranks;
    size_t count;
    size_t room;
} expected;

int ghost_pmix_names(const pmix_server_trkr_t* tracker, const char* space, unsigned rank) {
    for (size_t i = 0; i < tracker->npcs; ++i)
        if (tracker->pcs[i].rank == rank && 0 == strcmp(tracker->pcs[i].nspace, space)) return 1;
    return 0;
}

/* True: it is not to be contributed to now. */
static int hold_back(pmix_server_trkr_t* tracker) {
    for (size_t i = 0; i < expected.count; ++i) {
        if (!ghost_pmix_names(tracker, expected.ranks[i].nspace, expected.ranks[i].rank)) continue;
        tracker->host_called = false;
        return 1;
    }
    return 0;
}

/* Data is collected again when the rank calls; without it (the rank does not come) it is fetched
 * from here when somebody asks for it. */
static pmix_status_t fence(const pmix_proc_t procs[], size_t nprocs, const pmix_info_t info[],
                           size_t ninfo, char* data, size_t ndata, pmix_modex_cbfunc_t done,
                           void* given) {
    if (!hold_back(given) && !ghost_pmix_lacks_ranks(procs[0].nspace, info, ninfo))
        return stock_fence(procs, nprocs, info, ninfo, data, ndata, done, given);
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

/* PMIx_Connect: the stock call, which answers for this daemon alone (it knows these jobs, and tells
 * its server of them), then a fence of all. Errors: what either says. */
typedef struct {
    pmix_event_t ev; /* PMIX_THREADSHIFT wants this name */
    pmix_server_trkr_t* tracker;
    pmix_op_cbfunc_t done;
    pmix_status_t status;
} connect_t;

static int (*is_known)(uint32_t job, uint32_t rank);

/* The server may have given the call up meanwhile. */
static void answer(int fd, short flags, void* given) {
    connect_t* call = given;
    pmix_server_trkr_t* tracker;
    (void)fd, (void)flags;
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t) {
        if (tracker != call->tracker) continue;
        call->done(call->status, tracker);
        break;
    }
    PMIX_RELEASE(call->tracker);
    free(call);
}

static void finish(connect_t* call, pmix_status_t status) {
    call->status = PMIX_OPERATION_SUCCEEDED == status ? PMIX_SUCCESS : status;
    PMIX_THREADSHIFT(call, answer);
}

static void all_have_called(pmix_status_t status, const char* data, size_t ndata, void* given,
                            pmix_release_cbfunc_t release, void* release_data) {
    (void)data, (void)ndata;
    if (release) release(release_data);
    finish(given, status);
}

size_t ghost_pmix_signature(const pmix_server_trkr_t* tracker, pmix_proc_t* names, size_t room) {
    const int again = PMIX_CONNECTNB_CMD == tracker->type && 0 < tracker->npcs;
    const size_t count = tracker->npcs + (again ? 1 : 0);
    for (size_t i = 0; i < count && i < room; ++i)
        names[i] = tracker->pcs[i < tracker->npcs ? i : 0];
    return count;
}

/* The runtime ends mpirun where a fence names a process it has never heard of. Its thread. */
static int knows_all(const pmix_proc_t* names, size_t count) {
    for (size_t i = 0; is_known && i < count; ++i)
        if (!is_known((uint32_t)strtoul(names[i].nspace, NULL, 10), names[i].rank)) return 0;
    return 1;
}

static void known_here(pmix_status_t status, void* given) {
    connect_t* call = given;
    if (PMIX_SUCCESS != status) return finish(call, status);
    const size_t count = ghost_pmix_signature(call->tracker, NULL, 0);
    pmix_proc_t* names = calloc(count, sizeof *names);
    if (!names) return finish(call, PMIX_ERR_NOMEM);
    ghost_pmix_signature(call->tracker, names, count);
    status = knows_all(names, count)
                 ? stock_fence(names, count, NULL, 0, NULL, 0, all_have_called, call)
                 : PMIX_ERR_NOT_FOUND;
    free(names);
    if (PMIX_SUCCESS != status) finish(call, status);
}

/* What has been contributed to a call that then runs out of its time is never taken back: the next
 * try of the same processes would find it. So such a call is the stock one's, which waits for
 * nobody elsewhere. */
static int has_limit(const pmix_info_t info[], size_t ninfo) {
    for (size_t i = 0; i < ninfo; ++i)
        if (PMIX_CHECK_KEY(&info[i], PMIX_TIMEOUT)) return 1;
    return 0;
}

static pmix_status_t connect_all(const pmix_proc_t procs[], size_t nprocs, const pmix_info_t info[],
                                 size_t ninfo, pmix_op_cbfunc_t done, void* given) {
    if (hold_back(given)) return PMIX_SUCCESS;
    if (!all_are_ours(procs, nprocs) || has_limit(info, ninfo))
        return stock_connect(procs, nprocs, info, ninfo, done, given);
    connect_t* call = calloc(1, sizeof *call);
    if (!call) return PMIX_ERR_NOMEM;
    call->tracker = given;
    call->done = done;
    PMIX_RETAIN(call->tracker);
    const pmix_status_t rc = stock_connect(procs, nprocs, info, ninfo, known_here, call);
    if (PMIX_OPERATION_SUCCEEDED == rc) {
        known_here(PMIX_SUCCESS, call);
    } else if (PMIX_SUCCESS != rc) {
        PMIX_RELEASE(call->tracker);
        free(call);
        return rc;
    }
    return PMIX_SUCCESS;
}

void ghost_pmix_ask_for_processes(int (*known)(uint32_t job, uint32_t rank)) {
    is_known = known;
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
    if (PMIX_FENCENB_CMD != tracker->type && PMIX_CONNECTNB_CMD != tracker->type &&
        PMIX_DISCONNECTNB_CMD != tracker->type)
        return;
    tracker->host_called = true;
    if (PMIX_FENCENB_CMD == tracker->type)
        rc = pmix_host_server.fence_nb(tracker->pcs, tracker->npcs, tracker->info, tracker->ninfo,
                                       NULL, 0, tracker->modexcbfunc, tracker);
    else if (PMIX_CONNECTNB_CMD == tracker->type)
        rc = pmix_host_server.connect(tracker->pcs, tracker->npcs, tracker->info, tracker->ninfo,
                                      tracker->op_cbfunc, tracker);
    else
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

static size_t place_of(const char* space, unsigned rank) {
    size_t i = 0;
    while (i < expected.count &&
           (expected.ranks[i].rank != rank || 0 != strcmp(expected.ranks[i].nspace, space)))
        ++i;
    return i;
}

int ghost_pmix_expect_client(const char* space, unsigned rank) {
    if (place_of(space, rank) < expected.count) return 0;
    if (expected.count == expected.room) {
        const size_t room = expected.room + 16;
        pmix_proc_t* more = realloc(expected.ranks, room * sizeof *more);
        if (!more) return -1;
        expected.ranks = more;
        expected.room = room;
    }
    PMIX_LOAD_PROCID(&expected.ranks[expected.count], space, rank);
    ++expected.count;
    return 0;
}

void ghost_pmix_expect_nobody(void) {
    expected.count = 0;
}

void ghost_pmix_expect_no_more(const char* space, unsigned rank) {
    pmix_server_trkr_t *tracker, *next;
    const size_t place = place_of(space, rank);
    if (place == expected.count) return;
    expected.ranks[place] = expected.ranks[--expected.count];
    PMIX_LIST_FOREACH_SAFE(tracker, next, &pmix_server_globals.collectives, pmix_server_trkr_t)
    if (ghost_pmix_names(tracker, space, rank)) ghost_pmix_contribute_if_due(tracker);
}
