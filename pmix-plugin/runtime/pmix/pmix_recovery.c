/* SPDX-License-Identifier: BSD-3-Clause */
/* See pmix_recovery.h. Facts used here: libpmix 4.2.2 (src/mca/ptl/base/ptl_base_sendrecv.c,
 * lost_connection()) takes a dead client out of the count of every open call, calls the host for
 * those that are complete then, and caches an event that ends whoever connects later. */
#include "pmix-plugin/runtime/pmix/pmix_recovery.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>

#include "src/include/pmix_globals.h"
#include "src/mca/ptl/base/base.h"
#include "src/threads/pmix_threads.h"

static int installed;
static pmix_server_client_connected_fn_t stock_connected;
static pmix_server_client_connected2_fn_t stock_connected2;

typedef struct {
    pmix_object_t super;
    pmix_event_t ev; /* PMIX_THREADSHIFT wants this name */
} look_t;
static PMIX_CLASS_INSTANCE(look_t, pmix_object_t, NULL, NULL);

static int has_ended(const pmix_peer_t* peer) {
    char byte;
    const ssize_t n = recv(peer->sd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return 0 == n || (n < 0 && EAGAIN != errno && EINTR != errno);
}

/* In the place of libpmix's handler, which goes on with whatever is no end. Open calls keep their
 * counts; what has died is missing from the number of local ranks, as after the stock one. */
static void receive(int fd, short flags, void* data) {
    pmix_peer_t* peer = data;
    if (peer->finalized || !has_ended(peer)) return pmix_ptl_base_recv_handler(fd, flags, data);
    if (peer->recv_ev_active) pmix_event_del(&peer->recv_event);
    if (peer->send_ev_active) pmix_event_del(&peer->send_event);
    peer->recv_ev_active = peer->send_ev_active = false;
    if (0 < peer->nptr->nlocalprocs) --peer->nptr->nlocalprocs;
}

/* Connections whose handler is still libpmix's. */
static void take_over(int fd, short flags, void* data) {
    (void)fd, (void)flags;
    for (int i = 0; i < pmix_server_globals.clients.size; ++i) {
        pmix_peer_t* peer = pmix_pointer_array_get_item(&pmix_server_globals.clients, i);
        if (!peer || peer->sd < 0 || !peer->recv_ev_active || PMIX_PEER_IS_TOOL(peer)) continue;
        if (event_get_callback(&peer->recv_event) == receive) continue;
        pmix_event_del(&peer->recv_event);
        pmix_event_assign(&peer->recv_event, pmix_globals.evbase, peer->sd, EV_READ | EV_PERSIST,
                          receive, peer);
        pmix_event_add(&peer->recv_event, 0);
    }
    PMIX_RELEASE(data);
}

/* The handler is set after the host has been called. */
static void take_over_soon(void) {
    look_t* look = PMIX_NEW(look_t);
    PMIX_THREADSHIFT(look, take_over);
}

static pmix_status_t connected(const pmix_proc_t* who, void* object, pmix_op_cbfunc_t done,
                               void* data) {
    const pmix_status_t rc = stock_connected(who, object, done, data);
    take_over_soon();
    return rc;
}

static pmix_status_t connected2(const pmix_proc_t* who, void* object, pmix_info_t info[],
                                size_t ninfo, pmix_op_cbfunc_t done, void* data) {
    const pmix_status_t rc = stock_connected2(who, object, info, ninfo, done, data);
    take_over_soon();
    return rc;
}

void ghost_pmix_install_recovery(void) {
    if (installed) return;
    installed = 1;
    if (pmix_host_server.client_connected2) {
        stock_connected2 = pmix_host_server.client_connected2;
        pmix_host_server.client_connected2 = connected2;
    } else if (pmix_host_server.client_connected) {
        stock_connected = pmix_host_server.client_connected;
        pmix_host_server.client_connected = connected;
    }
}

static int says_failure(const pmix_info_t* info) {
    return PMIX_CHECK_KEY(info, PMIX_LOCAL_COLLECTIVE_STATUS) && PMIX_STATUS == info->value.type &&
           PMIX_SUCCESS != info->value.data.status;
}

int ghost_pmix_lacks_ranks(const char* space, const pmix_info_t info[], size_t ninfo) {
    pmix_namespace_t* ns;
    if (!installed) return 0;
    for (size_t i = 0; i < ninfo; ++i)
        if (says_failure(&info[i])) return 1;
    PMIX_LIST_FOREACH(ns, &pmix_globals.nspaces, pmix_namespace_t)
    if (0 == strcmp(ns->nspace, space))
        return ns->nlocalprocs < (ssize_t)pmix_list_get_size(&ns->ranks);
    return 0;
}
