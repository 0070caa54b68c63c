/* SPDX-License-Identifier: BSD-3-Clause */
/* Source: Open MPI's PMIx 4.2.2, src/mca/ptl/base/ptl_base_sendrecv.c (who touches the peer and
 * when), ptl_base_fns.c (connection), client/pmix_client_fence.c and
 * event/pmix_event_registration.c (what the requests look like on the wire). */
#include "kernet-btl/agent/agent_pmix.h"

#include "src/include/pmix_config.h"
#include "src/include/pmix_globals.h"
#include "src/client/pmix_client_ops.h"
#include "src/event/pmix_event.h"
#include "src/mca/ptl/base/base.h"
#include "src/threads/pmix_threads.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* While closed, sd must stay >= 0: pmix_ptl_base_send_recv() drops a request silently when it is
 * negative, and the application that made it would wait for ever. No process has so many files. */
enum { dummy_sd = 1000000 };
/* libpmix waits without a limit for the server's half of the handshake unless told otherwise. */
enum { handshake_seconds = 5 };

typedef enum { state_open, state_gated, state_closed } state_t;

/* Only changed on the progress thread. */
static state_t state = state_open;
static uint32_t waiting_tag; /* of the call the process was in at the gate; 0: none */

typedef enum { op_queued, op_running, op_done, op_abandoned } progress_t;
typedef void (*work_t)(struct kernet_pmix_op* op);

struct kernet_pmix_op {
    pmix_event_t ev; /* PMIX_THREADSHIFT wants this name */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    progress_t progress;
    work_t work;
    int status;
    char* uri;
    bool resend;
    struct kernet_pmix_why why;
};

__attribute__((format(printf, 2, 3))) static void fail(struct kernet_pmix_op* op,
                                                       const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(op->why.text, sizeof op->why.text, format, args);
    va_end(args);
    op->status = KERNET_PMIX_FAILED;
}

/* --- running something on the progress thread ------------------------------------------------ */

static struct kernet_pmix_op* new_op(work_t work) {
    struct kernet_pmix_op* op = calloc(1, sizeof *op);
    if (NULL == op) return NULL;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&op->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&op->mutex, NULL);
    op->work = work;
    return op;
}

static void free_op(struct kernet_pmix_op* op) {
    pthread_cond_destroy(&op->changed);
    pthread_mutex_destroy(&op->mutex);
    free(op->uri);
    free(op);
}

/* On the progress thread. An operation nobody waits for any more is not carried out: a gate that
 * closes late would never be opened. */
static void run_op(int sd, short flags, void* arg) {
    struct kernet_pmix_op* op = arg;
    (void)sd;
    (void)flags;
    pthread_mutex_lock(&op->mutex);
    bool abandoned = op_abandoned == op->progress;
    if (!abandoned) op->progress = op_running;
    pthread_mutex_unlock(&op->mutex);
    if (abandoned) {
        free_op(op);
        return;
    }
    op->work(op);
    pthread_mutex_lock(&op->mutex);
    op->progress = op_done;
    pthread_cond_signal(&op->changed);
    pthread_mutex_unlock(&op->mutex);
}

static struct timespec deadline_in(int64_t us) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += us / 1000000;
    t.tv_nsec += (us % 1000000) * 1000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec += 1;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

/* BUSY while it is not done; with give_up an operation that has not begun is abandoned, and one
 * that runs is waited for (each has its own limits). */
static int wait_op(struct kernet_pmix_op* op, int64_t wait_us, bool give_up,
                   struct kernet_pmix_why* why) {
    struct timespec deadline = deadline_in(wait_us);
    pthread_mutex_lock(&op->mutex);
    int rc = 0;
    while (op_done != op->progress && ETIMEDOUT != rc) {
        rc = pthread_cond_timedwait(&op->changed, &op->mutex, &deadline);
    }
    while (give_up && op_running == op->progress) pthread_cond_wait(&op->changed, &op->mutex);
    bool done = op_done == op->progress;
    if (!done && give_up) op->progress = op_abandoned; /* from here run_op() owns it */
    pthread_mutex_unlock(&op->mutex);
    if (!done) {
        if (!give_up) return KERNET_PMIX_BUSY;
        snprintf(why->text, sizeof why->text, "the PMIx progress thread does not answer");
        return KERNET_PMIX_TIMEOUT;
    }
    int status = op->status;
    *why = op->why;
    free_op(op);
    return status;
}

static int no_memory(struct kernet_pmix_why* why) {
    snprintf(why->text, sizeof why->text, "out of memory");
    return KERNET_PMIX_FAILED;
}

static int run(struct kernet_pmix_op* op, int limit_ms, struct kernet_pmix_why* why) {
    PMIX_THREADSHIFT(op, run_op);
    return wait_op(op, (int64_t)limit_ms * 1000, true, why);
}

/* --- gate, ungate, close --------------------------------------------------------------------- */

/* Posted receives for answers to requests; the two for notifications and forwarded output have
 * reserved tags and are always there. */
static unsigned open_calls(uint32_t* tag) {
    unsigned count = 0;
    pmix_ptl_posted_recv_t* posted;
    PMIX_LIST_FOREACH(posted, &pmix_ptl_base.posted_recvs, pmix_ptl_posted_recv_t) {
        if (posted->tag < PMIX_PTL_TAG_DYNAMIC || UINT_MAX == posted->tag) continue;
        if (NULL == posted->cbfunc) continue;
        *tag = posted->tag;
        ++count;
    }
    return count;
}

static bool message_in_flight(const pmix_peer_t* server) {
    int unread = 0;
    if (0 == ioctl(server->sd, FIONREAD, &unread) && unread > 0) return true;
    return NULL != server->send_msg || NULL != server->recv_msg ||
           !pmix_list_is_empty((pmix_list_t*)&server->send_queue);
}

static void gate(struct kernet_pmix_op* op) {
    pmix_peer_t* server = pmix_client_globals.myserver;
    uint32_t tag = 0;
    if (state_open != state || !pmix_globals.connected || server->sd < 0) {
        fail(op, "the PMIx client is not connected");
        return;
    }
    unsigned calls = open_calls(&tag);
    if (calls > 1 || message_in_flight(server)) {
        snprintf(op->why.text, sizeof op->why.text, "%u PMIx calls in flight", calls);
        op->status = KERNET_PMIX_BUSY;
        return;
    }
    if (server->recv_ev_active) {
        pmix_event_del(&server->recv_event);
        server->recv_ev_active = false;
    }
    if (server->send_ev_active) pmix_event_del(&server->send_event);
    server->send_ev_active = true; /* "already armed": later requests are only queued */
    waiting_tag = calls > 0 ? tag : 0;
    state = state_gated;
}

/* Lets queued messages go out through a send event that has been assigned. */
static void arm_send(pmix_peer_t* server) {
    server->send_ev_active = false;
    if (NULL == server->send_msg) {
        server->send_msg = (pmix_ptl_send_t*)pmix_list_remove_first(&server->send_queue);
    }
    if (NULL == server->send_msg) return;
    server->send_ev_active = true;
    pmix_event_add(&server->send_event, 0);
}

static void ungate(struct kernet_pmix_op* op) {
    pmix_peer_t* server = pmix_client_globals.myserver;
    if (state_gated != state) {
        fail(op, "the PMIx client is not gated");
        return;
    }
    server->recv_ev_active = true;
    pmix_event_add(&server->recv_event, 0);
    arm_send(server);
    state = state_open;
}

static void close_client(struct kernet_pmix_op* op) {
    pmix_peer_t* server = pmix_client_globals.myserver;
    if (state_gated != state) {
        fail(op, "the PMIx client is not gated");
        return;
    }
    close(server->sd);
    server->sd = dummy_sd;
    state = state_closed;
}

static void keep_from_programs(const pmix_peer_t* server) {
    fcntl(server->sd, F_SETFD, FD_CLOEXEC);
}

/* --- attach ---------------------------------------------------------------------------------- */

static void put_first(pmix_peer_t* server, pmix_buffer_t* message, uint32_t tag) {
    pmix_ptl_send_t* send = PMIX_NEW(pmix_ptl_send_t);
    send->hdr.pindex = htonl(pmix_globals.pindex);
    send->hdr.tag = htonl(tag);
    send->hdr.nbytes = htonl(message->bytes_used);
    send->data = message;
    send->sdptr = (char*)&send->hdr;
    send->sdbytes = sizeof(pmix_ptl_hdr_t);
    if (NULL != server->send_msg) {
        pmix_list_prepend(&server->send_queue, &server->send_msg->super);
    }
    server->send_msg = send;
}

/* The job-wide fence the process waits in, for a server that has not heard of it. The receive for
 * the answer is posted already. */
static pmix_status_t resend_fence(pmix_peer_t* server) {
    pmix_cmd_t command = PMIX_FENCENB_CMD;
    size_t procs = 1, infos = 0;
    pmix_proc_t everyone;
    pmix_status_t rc;
    PMIX_LOAD_PROCID(&everyone, pmix_globals.myid.nspace, PMIX_RANK_WILDCARD);
    pmix_buffer_t* message = PMIX_NEW(pmix_buffer_t);
    PMIX_BFROPS_PACK(rc, server, message, &command, 1, PMIX_COMMAND);
    if (PMIX_SUCCESS == rc) PMIX_BFROPS_PACK(rc, server, message, &procs, 1, PMIX_SIZE);
    if (PMIX_SUCCESS == rc) PMIX_BFROPS_PACK(rc, server, message, &everyone, 1, PMIX_PROC);
    if (PMIX_SUCCESS == rc) PMIX_BFROPS_PACK(rc, server, message, &infos, 1, PMIX_SIZE);
    if (PMIX_SUCCESS != rc) {
        PMIX_RELEASE(message);
        return rc;
    }
    put_first(server, message, waiting_tag);
    return PMIX_SUCCESS;
}

static void ignore_answer(struct pmix_peer_t* peer, pmix_ptl_hdr_t* header, pmix_buffer_t* buffer,
                          void* data) {
    (void)peer;
    (void)header;
    (void)buffer;
    (void)data;
}

/* No codes: the default handlers. */
static pmix_status_t register_codes(pmix_peer_t* server, pmix_status_t* codes, size_t count) {
    pmix_cmd_t command = PMIX_REGEVENTS_CMD;
    size_t infos = 0;
    pmix_status_t rc;
    pmix_buffer_t* message = PMIX_NEW(pmix_buffer_t);
    PMIX_BFROPS_PACK(rc, server, message, &command, 1, PMIX_COMMAND);
    if (PMIX_SUCCESS == rc) PMIX_BFROPS_PACK(rc, server, message, &count, 1, PMIX_SIZE);
    if (PMIX_SUCCESS == rc && count > 0) {
        PMIX_BFROPS_PACK(rc, server, message, codes, count, PMIX_STATUS);
    }
    if (PMIX_SUCCESS == rc) PMIX_BFROPS_PACK(rc, server, message, &infos, 1, PMIX_SIZE);
    if (PMIX_SUCCESS == rc) {
        PMIX_PTL_SEND_RECV(rc, server, message, ignore_answer, NULL);
    }
    if (PMIX_SUCCESS != rc) PMIX_RELEASE(message);
    return rc;
}

/* Every code with a handler here is registered at the new server: it has heard of none. */
static pmix_status_t replay_registrations(pmix_peer_t* server) {
    pmix_list_t* actives = &pmix_globals.events.actives;
    pmix_status_t* codes = calloc(pmix_list_get_size(actives) + 1, sizeof *codes);
    if (NULL == codes) return PMIX_ERR_NOMEM;
    size_t count = 0;
    bool have_default = false;
    pmix_active_code_t* active;
    PMIX_LIST_FOREACH(active, actives, pmix_active_code_t) {
        if (PMIX_MAX_ERR_CONSTANT == active->code) {
            have_default = true;
        } else {
            codes[count++] = active->code;
        }
    }
    pmix_status_t rc = PMIX_SUCCESS;
    if (count > 0) rc = register_codes(server, codes, count);
    if (PMIX_SUCCESS == rc && have_default) rc = register_codes(server, NULL, 0);
    free(codes);
    return rc;
}

/* PMIX_SUCCESS, or the socket is closed. libpmix does not report a server's refusal: what tells is
 * that no client index came with the answer. */
static pmix_status_t connect_to(pmix_peer_t* server, char* address) {
    int saved_wait = pmix_ptl_base.handshake_wait_time;
    int saved_index = pmix_globals.pindex;
    if (pmix_ptl_base.handshake_wait_time <= 0) {
        pmix_ptl_base.handshake_wait_time = handshake_seconds;
    }
    pmix_globals.pindex = -1;
    server->sd = -1;
    pmix_status_t rc = pmix_ptl_base_make_connection(server, address, NULL, 0);
    pmix_ptl_base.handshake_wait_time = saved_wait;
    if (PMIX_SUCCESS == rc && pmix_globals.pindex < 0) {
        close(server->sd);
        rc = PMIX_ERR_NOT_FOUND;
    }
    if (PMIX_SUCCESS != rc) pmix_globals.pindex = saved_index;
    return rc;
}

static void attach(struct kernet_pmix_op* op) {
    pmix_peer_t* server = pmix_client_globals.myserver;
    char *nspace = NULL, *address = NULL;
    pmix_rank_t rank = 0;
    /* The rank was told to leave, and the socket could not be closed in time. */
    if (state_gated == state) close_client(op);
    if (state_closed != state) {
        fail(op, "the PMIx client is not closed");
        return;
    }
    pmix_status_t rc = pmix_ptl_base_parse_uri(op->uri, &nspace, &rank, &address);
    if (PMIX_SUCCESS == rc) rc = connect_to(server, address);
    if (PMIX_SUCCESS != rc) {
        server->sd = dummy_sd;
        fail(op, "cannot attach to PMIx server %.80s: %s", op->uri, PMIx_Error_string(rc));
        goto out;
    }
    keep_from_programs(server);
    int on = 1;
    setsockopt(server->sd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* The server's side waits for acknowledgements between its small answers (no TCP_NODELAY there);
     * a delayed one costs 40 ms, several requests follow now. */
    setsockopt(server->sd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
    pmix_ptl_base_complete_connection(server, nspace, rank, address);
    state = state_open;
    if (waiting_tag != 0 && op->resend) rc = resend_fence(server);
    waiting_tag = 0;
    arm_send(server);
    if (PMIX_SUCCESS == rc) rc = replay_registrations(server);
    if (PMIX_SUCCESS != rc) {
        fail(op, "attached, but cannot resume PMIx requests: %s", PMIx_Error_string(rc));
    }
out:
    free(nspace);
    free(address);
}

static void mark_uncommitted(struct kernet_pmix_op* op) {
    (void)op;
    pmix_globals.commits_pending = true;
}

/* --- interface ------------------------------------------------------------------------------- */

int kernet_pmix_supported(struct kernet_pmix_why* why) {
    /* "OpenPMIx 4.2.2, repo rev: v4.2.2 …" */
    const char* version = PMIx_Get_version();
    if (NULL == strstr(version, "PMIx 4.2.")) {
        snprintf(why->text, sizeof why->text,
                 "libpmix is \"%.60s\"; ranks can be moved with 4.2.x only", version);
        return KERNET_PMIX_FAILED;
    }
    if (!PMIx_Initialized() || NULL == pmix_client_globals.myserver ||
        pmix_client_globals.singleton) {
        snprintf(why->text, sizeof why->text, "this process is not the client of a PMIx server");
        return KERNET_PMIX_FAILED;
    }
    keep_from_programs(pmix_client_globals.myserver);
    return KERNET_PMIX_OK;
}

static int run_simple(work_t work, int limit_ms, struct kernet_pmix_why* why) {
    struct kernet_pmix_op* op = new_op(work);
    return NULL == op ? no_memory(why) : run(op, limit_ms, why);
}

int kernet_pmix_gate(uint32_t* tag, int limit_ms, struct kernet_pmix_why* why) {
    int status = run_simple(gate, limit_ms, why);
    *tag = KERNET_PMIX_OK == status ? waiting_tag : 0; /* does not advance while gated */
    return status;
}

int kernet_pmix_ungate(int limit_ms, struct kernet_pmix_why* why) {
    return run_simple(ungate, limit_ms, why);
}

int kernet_pmix_close(int limit_ms, struct kernet_pmix_why* why) {
    return run_simple(close_client, limit_ms, why);
}

struct kernet_pmix_op* kernet_pmix_attach_begin(const char* uri, bool resend,
                                                struct kernet_pmix_why* why) {
    struct kernet_pmix_op* op = new_op(attach);
    if (NULL != op) op->uri = strdup(uri);
    if (NULL == op || NULL == op->uri) {
        if (NULL != op) free_op(op);
        no_memory(why);
        return NULL;
    }
    op->resend = resend;
    PMIX_THREADSHIFT(op, run_op);
    return op;
}

int kernet_pmix_attach_wait(struct kernet_pmix_op* op, int64_t wait_us, bool give_up,
                            struct kernet_pmix_why* why) {
    return wait_op(op, wait_us, give_up, why);
}

int kernet_pmix_recommit(int limit_ms, struct kernet_pmix_why* why) {
    int status = run_simple(mark_uncommitted, limit_ms, why);
    if (KERNET_PMIX_OK != status) return status;
    pmix_status_t rc = PMIx_Commit();
    if (PMIX_SUCCESS == rc) return KERNET_PMIX_OK;
    snprintf(why->text, sizeof why->text, "cannot publish again: %s", PMIx_Error_string(rc));
    return KERNET_PMIX_FAILED;
}

void kernet_pmix_forked(void) {
    pmix_peer_t* server = pmix_client_globals.myserver;
    if (NULL == server || state_closed == state || server->sd < 0) return;
    close(server->sd);
    server->sd = -1;
}
