/* SPDX-License-Identifier: BSD-3-Clause */
/* See pmix_server.h. C, for PMIx's internal headers do not compile as C++. Facts used here are from
 * PMIx 4.2.2: src/server/pmix_server_ops.c (fence trackers), src/mca/ptl/base/ptl_base_sendrecv.c
 * (lost_connection). */
#include "src/include/pmix_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/include/pmix_globals.h"
#include "src/mca/ptl/base/base.h"
#include "src/server/pmix_server_ops.h"
#include "src/threads/pmix_threads.h"
#include "src/util/pmix_argv.h"

#include "pmix-plugin/runtime/pmix/pmix_collectives.h"
#include "pmix-plugin/runtime/pmix/pmix_server.h"

/* The tracker of a fence this daemon has contributed to must never again find as many callers as
 * local ranks, or libpmix would call the host a second time: its nlocal is this base plus the
 * number of late joiners, beyond any number of callers. */
#define CONTRIBUTED_BASE (1u << 20)

typedef struct request {
    pmix_object_t super;
    pmix_event_t ev;
    pmix_lock_t lock;
    int (*work)(struct request*);
    const char* space;
    pmix_namespace_t* ns; /* found before work is called */
    unsigned rank;
    unsigned fence_tag;
    int late_pending;
    char* text;
    size_t size;
    struct ghost_pmix_name* names;
    size_t which;
    int called;
    int result;
} request_t;
static PMIX_CLASS_INSTANCE(request_t, pmix_object_t, NULL, NULL);

static pmix_namespace_t* find_space(const char* name) {
    pmix_namespace_t* ns;
    PMIX_LIST_FOREACH(ns, &pmix_globals.nspaces, pmix_namespace_t)
    if (0 == strcmp(ns->nspace, name)) return ns;
    return NULL;
}

static void on_progress_thread(int fd, short flags, void* data) {
    request_t* request = data;
    (void)fd, (void)flags;
    PMIX_ACQUIRE_OBJECT(request);
    request->ns = find_space(request->space);
    request->result = request->ns ? request->work(request) : -1;
    PMIX_WAKEUP_THREAD(&request->lock);
}

static int run(request_t* request) {
    PMIX_CONSTRUCT_LOCK(&request->lock);
    PMIX_THREADSHIFT(request, on_progress_thread);
    PMIX_WAIT_THREAD(&request->lock);
    const int result = request->result;
    PMIX_DESTRUCT_LOCK(&request->lock);
    PMIX_RELEASE(request);
    return result;
}

static request_t* make(int (*work)(request_t*), const char* space, unsigned rank) {
    request_t* request = PMIX_NEW(request_t);
    request->work = work;
    request->space = space;
    request->rank = rank;
    request->fence_tag = 0;
    request->late_pending = 0;
    return request;
}

static int peer_is(const pmix_peer_t* peer, const request_t* request) {
    return peer && peer->info && peer->nptr == request->ns &&
           peer->info->pname.rank == request->rank;
}

/* Does the rank take part in this collective? */
static int takes_part(const pmix_server_trkr_t* tracker, const request_t* request) {
    for (size_t i = 0; i < tracker->npcs; ++i)
        if (0 == strcmp(tracker->pcs[i].nspace, request->space) &&
            (PMIX_RANK_WILDCARD == tracker->pcs[i].rank || request->rank == tracker->pcs[i].rank))
            return 1;
    return 0;
}

static int is_job_wide_fence(const pmix_server_trkr_t* tracker, const request_t* request) {
    return PMIX_FENCENB_CMD == tracker->type && 1 == tracker->npcs &&
           PMIX_RANK_WILDCARD == tracker->pcs[0].rank &&
           0 == strcmp(tracker->pcs[0].nspace, request->space);
}

/* A fence that collects data (MPI_Init's) gathered some of it from the rank already. */
static int waits_in_plain_fence(const request_t* request) {
    pmix_server_trkr_t* tracker;
    pmix_server_caddy_t* caller;
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t) {
        if (!is_job_wide_fence(tracker, request) || PMIX_COLLECT_YES == tracker->collect_type)
            continue;
        PMIX_LIST_FOREACH(caller, &tracker->local_cbs, pmix_server_caddy_t)
        if (peer_is(caller->peer, request) && caller->hdr.tag == request->fence_tag) return 1;
    }
    return 0;
}

/* A cached "connection lost" of a rank is delivered to it when it comes back here, and aborts it.
 */
static void forget_notifications_of(const request_t* request) {
    for (int i = 0; i < pmix_globals.max_events; ++i) {
        pmix_notify_caddy_t* note = NULL;
        pmix_hotel_knock(&pmix_globals.notifications, i, (void**)&note);
        if (!note || note->source.rank != request->rank ||
            0 != strcmp(note->source.nspace, request->space))
            continue;
        pmix_hotel_checkout(&pmix_globals.notifications, i);
        PMIX_RELEASE(note);
    }
}

static void drop_connection(pmix_peer_t* peer) {
    peer->finalized = true;
    if (peer->recv_ev_active) pmix_event_del(&peer->recv_event);
    if (peer->send_ev_active) pmix_event_del(&peer->send_event);
    peer->recv_ev_active = peer->send_ev_active = false;
    CLOSE_THE_SOCKET(peer->sd);
    pmix_server_purge_events(peer, NULL);
}

/* How many connections it had. */
static int drop_client(const request_t* request) {
    int found = 0;
    forget_notifications_of(request);
    for (int i = 0; i < pmix_server_globals.clients.size; ++i) {
        pmix_peer_t* peer = pmix_pointer_array_get_item(&pmix_server_globals.clients, i);
        if (!peer_is(peer, request)) continue;
        drop_connection(peer);
        /* Not released: callers that wait in open fences still point to it. */
        pmix_pointer_array_set_item(&pmix_server_globals.clients, i, NULL);
        ++found;
    }
    return found;
}

static int detach_from_server(request_t* request) {
    pmix_server_trkr_t* tracker;
    if (request->fence_tag && !waits_in_plain_fence(request)) return 1;
    /* A fence all of whose ranks are local completes without the host, that is without the rank
     * that is about to leave. */
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t)
    if (takes_part(tracker, request)) tracker->local = false;
    return drop_client(request) > 0 ? 0 : -1;
}

static int may_detach(request_t* request) {
    if (request->fence_tag && !waits_in_plain_fence(request)) return 1;
    for (int i = 0; i < pmix_server_globals.clients.size; ++i)
        if (peer_is(pmix_pointer_array_get_item(&pmix_server_globals.clients, i), request))
            return 0;
    return -1;
}

/* Takes the rank's call out of the tracker; it is made again at the target. 1 if there was one. */
static int remove_call(pmix_server_trkr_t* tracker, const request_t* request) {
    pmix_server_caddy_t *caller, *next;
    int removed = 0;
    PMIX_LIST_FOREACH_SAFE(caller, next, &tracker->local_cbs, pmix_server_caddy_t) {
        if (!peer_is(caller->peer, request)) continue;
        pmix_list_remove_item(&tracker->local_cbs, &caller->super);
        removed = 1; /* not released: its peer is the dropped connection, whose end would be run */
    }
    return removed;
}

static void leave_fence(pmix_server_trkr_t* tracker, const request_t* request) {
    tracker->local = false;
    const int had_called = remove_call(tracker, request);
    if (tracker->host_called) {
        if (tracker->nlocal < CONTRIBUTED_BASE) tracker->nlocal = CONTRIBUTED_BASE;
        /* It came late, had not called yet and will not do so here: one vote less. */
        const int was_late =
            request->late_pending || ghost_pmix_names(tracker, request->space, request->rank);
        if (was_late && !had_called && tracker->nlocal > CONTRIBUTED_BASE) --tracker->nlocal;
        return;
    }
    if (0 == tracker->nlocal) return;
    --tracker->nlocal;
    ghost_pmix_contribute_if_due(tracker); /* everybody who stays may have called already */
}

static void recount(pmix_namespace_t* ns) {
    ns->nlocalprocs = pmix_list_get_size(&ns->ranks);
    ns->all_registered = true;
}

/* Not released: the dropped connection points to it. */
static int forget_info(const request_t* request) {
    pmix_rank_info_t *info, *next;
    int found = -1;
    PMIX_LIST_FOREACH_SAFE(info, next, &request->ns->ranks, pmix_rank_info_t) {
        if (info->pname.rank != request->rank) continue;
        pmix_list_remove_item(&request->ns->ranks, &info->super);
        found = 0;
    }
    return found;
}

static int leave(request_t* request) {
    pmix_server_trkr_t* tracker;
    const int found = forget_info(request);
    recount(request->ns);
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t)
    if (takes_part(tracker, request)) leave_fence(tracker, request);
    return found;
}

static int join(request_t* request) {
    pmix_server_trkr_t* tracker;
    int late = 0;
    recount(request->ns);
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t) {
        if (!takes_part(tracker, request)) continue;
        if (tracker->host_called) {
            if (tracker->nlocal < CONTRIBUTED_BASE) tracker->nlocal = CONTRIBUTED_BASE;
            if (!ghost_pmix_names(tracker, request->space, request->rank)) late = 1;
        }
        ++tracker->nlocal;
    }
    return late;
}

static int forget_rank(request_t* request) {
    const int found = drop_client(request);
    forget_info(request);
    recount(request->ns);
    return found;
}

static int names_space(const pmix_server_trkr_t* tracker, const char* space) {
    for (size_t i = 0; i < tracker->npcs; ++i)
        if (0 == strcmp(tracker->pcs[i].nspace, space)) return 1;
    return 0;
}

/* None of them is released: the host may still point to it. */
static int forget_calls(request_t* request) {
    pmix_server_trkr_t *tracker, *next;
    pmix_dmdx_local_t *local, *next_local;
    pmix_dmdx_remote_t *remote, *next_remote;
    int found = 0;
    PMIX_LIST_FOREACH_SAFE(tracker, next, &pmix_server_globals.collectives, pmix_server_trkr_t) {
        if (!names_space(tracker, request->space)) continue;
        if (tracker->event_active) pmix_event_del(&tracker->ev);
        tracker->event_active = false;
        pmix_list_remove_item(&pmix_server_globals.collectives, &tracker->super);
        ++found;
    }
    PMIX_LIST_FOREACH_SAFE(local, next_local, &pmix_server_globals.local_reqs, pmix_dmdx_local_t)
    pmix_list_remove_item(&pmix_server_globals.local_reqs, &local->super), ++found;
    PMIX_LIST_FOREACH_SAFE(remote, next_remote, &pmix_server_globals.remote_pnd, pmix_dmdx_remote_t)
    pmix_list_remove_item(&pmix_server_globals.remote_pnd, &remote->super), ++found;
    ghost_pmix_expect_nobody();
    request->ns->nfinalized = 0;
    return found;
}

static int has_called(const pmix_server_trkr_t* tracker, const request_t* request) {
    pmix_server_caddy_t* caller;
    PMIX_LIST_FOREACH(caller, &tracker->local_cbs, pmix_server_caddy_t)
    if (peer_is(caller->peer, request)) return 1;
    return 0;
}

static int late_called(request_t* request) {
    pmix_server_trkr_t* tracker;
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t) {
        if (tracker->host_called && takes_part(tracker, request) &&
            !ghost_pmix_names(tracker, request->space, request->rank) &&
            has_called(tracker, request))
            return 1;
    }
    return 0;
}

static int expect(request_t* request) {
    return ghost_pmix_expect_client(request->space, request->rank);
}

static int expect_no_more(request_t* request) {
    ghost_pmix_expect_no_more(request->space, request->rank);
    return 0;
}

static int list_call(request_t* request) {
    pmix_server_trkr_t* tracker;
    size_t seen = 0;
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t) {
        if (!tracker->host_called || !ghost_pmix_names(tracker, request->space, request->rank) ||
            has_called(tracker, request) != request->called || seen++ != request->which)
            continue;
        const size_t count = ghost_pmix_signature(tracker, NULL, 0);
        if (count > request->size) return (int)count;
        pmix_proc_t* all = calloc(count, sizeof *all);
        if (!all) return 0;
        ghost_pmix_signature(tracker, all, count);
        for (size_t i = 0; i < count; ++i) {
            request->names[i].job = (uint32_t)strtoul(all[i].nspace, NULL, 10);
            request->names[i].rank = all[i].rank;
        }
        free(all);
        return (int)count;
    }
    return 0;
}

static int votes(request_t* request) {
    pmix_server_trkr_t* tracker;
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t) {
        if (!is_job_wide_fence(tracker, request)) continue;
        if (!tracker->host_called) return tracker->nlocal > 0;
        return 1 + (tracker->nlocal >= CONTRIBUTED_BASE ? tracker->nlocal - CONTRIBUTED_BASE : 0);
    }
    return pmix_list_get_size(&request->ns->ranks) > 0;
}

static int reattach(request_t* request) {
    pmix_server_trkr_t* tracker;
    pmix_server_caddy_t* caller;
    pmix_peer_t* present = NULL;
    int changed = 0;
    for (int i = 0; i < pmix_server_globals.clients.size; ++i) {
        pmix_peer_t* peer = pmix_pointer_array_get_item(&pmix_server_globals.clients, i);
        if (peer_is(peer, request)) present = peer;
    }
    if (!present) return 0;
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t)
    PMIX_LIST_FOREACH(caller, &tracker->local_cbs, pmix_server_caddy_t) {
        if (caller->peer == present || !peer_is(caller->peer, request)) continue;
        PMIX_RETAIN(present);
        caller->peer = present;
        ++changed;
    }
    return changed;
}

static int describe(request_t* request) {
    pmix_server_trkr_t* tracker;
    size_t used =
        snprintf(request->text, request->size, "local %zu of %zu", (size_t)request->ns->nlocalprocs,
                 (size_t)pmix_list_get_size(&request->ns->ranks));
    PMIX_LIST_FOREACH(tracker, &pmix_server_globals.collectives, pmix_server_trkr_t) {
        if (used >= request->size) break;
        used +=
            snprintf(request->text + used, request->size - used,
                     ", collective type %d called %zu of %zu%s%s", (int)tracker->type,
                     (size_t)pmix_list_get_size(&tracker->local_cbs), (size_t)tracker->nlocal,
                     tracker->host_called ? " contributed" : "", tracker->local ? " local" : "");
    }
    return 0;
}

int ghost_pmix_detach(const char* space, unsigned rank, unsigned fence_tag) {
    request_t* request = make(detach_from_server, space, rank);
    request->fence_tag = fence_tag;
    return run(request);
}

int ghost_pmix_may_detach(const char* space, unsigned rank, unsigned fence_tag) {
    request_t* request = make(may_detach, space, rank);
    request->fence_tag = fence_tag;
    return run(request);
}

int ghost_pmix_leave(const char* space, unsigned rank, int late_pending) {
    request_t* request = make(leave, space, rank);
    request->late_pending = late_pending;
    return run(request);
}

void ghost_pmix_expect(const char* space, unsigned rank) {
    run(make(expect, space, rank));
}

void ghost_pmix_expect_rank_no_more(const char* space, unsigned rank) {
    run(make(expect_no_more, space, rank));
}

size_t ghost_pmix_contributed_call(const char* space, unsigned rank, int called, size_t which,
                                   struct ghost_pmix_name* names, size_t room) {
    request_t* request = make(list_call, space, rank);
    request->called = called;
    request->which = which;
    request->names = names;
    request->size = room;
    const int count = run(request);
    return count < 0 ? 0 : (size_t)count;
}

/* On the progress thread, in the same event in which the rank became one of those here: a call that
 * is begun before counts without it, one that is begun later with it. */
static void registered(pmix_status_t status, void* given) {
    request_t* request = given;
    if (PMIX_SUCCESS == status)
        on_progress_thread(-1, 0, request);
    else
        PMIX_WAKEUP_THREAD(&request->lock);
}

int ghost_pmix_join(const char* space, unsigned rank, void* object) {
    request_t* request = make(join, space, rank);
    pmix_proc_t name;
    request->result = -1;
    PMIX_CONSTRUCT_LOCK(&request->lock);
    PMIX_LOAD_PROCID(&name, space, rank);
    if (PMIX_SUCCESS ==
        PMIx_server_register_client(&name, geteuid(), getegid(), object, registered, request))
        PMIX_WAIT_THREAD(&request->lock);
    const int late = request->result;
    PMIX_DESTRUCT_LOCK(&request->lock);
    PMIX_RELEASE(request);
    return late;
}

int ghost_pmix_late_called(const char* space, unsigned rank) {
    return run(make(late_called, space, rank));
}

int ghost_pmix_votes(const char* space) {
    const int count = run(make(votes, space, 0));
    return count < 0 ? 0 : count;
}

int ghost_pmix_reattach(const char* space, unsigned rank) {
    return run(make(reattach, space, rank));
}

int ghost_pmix_forget_rank(const char* space, unsigned rank) {
    return run(make(forget_rank, space, rank));
}

int ghost_pmix_forget_calls(const char* space) {
    return run(make(forget_calls, space, 0));
}

int ghost_pmix_uri(char* uri, size_t size) {
    static const char name[] = "PMIX_SERVER_URI41=";
    char** env = NULL;
    int found = -1;
    PMIx_server_setup_fork(&pmix_globals.myid, &env);
    for (char** entry = env; entry && *entry; ++entry) {
        if (0 != strncmp(*entry, name, sizeof name - 1)) continue;
        const char* value = *entry + sizeof name - 1;
        if (strlen(value) < size) {
            strcpy(uri, value);
            found = 0;
        }
    }
    pmix_argv_free(env);
    return found;
}

void ghost_pmix_describe(const char* space, char* text, size_t size) {
    request_t* request = make(describe, space, 0);
    text[0] = 0;
    request->text = text;
    request->size = size;
    run(request);
}
