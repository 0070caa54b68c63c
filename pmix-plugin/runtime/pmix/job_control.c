/* SPDX-License-Identifier: BSD-3-Clause */
/* See job_control.h. Facts used here are from PMIx 4.2.2, src/server/pmix_server.c: a request's
 * answer is packed and queued by the callback itself, so it must run on the progress thread. */
#include "src/include/pmix_config.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "src/include/pmix_globals.h"
#include "src/server/pmix_server_ops.h"
#include "src/threads/pmix_threads.h"

#include "pmix-plugin/runtime/pmix/job_control.h"

typedef struct request {
    pmix_object_t super;
    pmix_event_t ev;
    pmix_lock_t lock;
    pmix_info_cbfunc_t done;
    void* data;
    int failed;
} request_t;
static PMIX_CLASS_INSTANCE(request_t, pmix_object_t, NULL, NULL);

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER; /* of the two below */
static ghost_job_control_fn handler;
static void* handler_context;
static pmix_server_job_control_fn_t stock;

static const pmix_info_t* find(const pmix_info_t* list, size_t count, const char* key) {
    for (size_t i = 0; i < count; ++i)
        if (PMIX_CHECK_KEY(&list[i], key)) return &list[i];
    return NULL;
}

/* Of nothing an empty one; NULL: it is no text. */
static const char* text_of(const pmix_info_t* info) {
    if (!info) return "";
    return PMIX_STRING == info->value.type ? info->value.data.string : NULL;
}

static const struct {
    const char* key;
    int act;
} acts[] = {
    {PMIX_JOB_CTRL_CHECKPOINT, GHOST_CONTROL_CHECKPOINT},
    {"ghost.migrate", GHOST_CONTROL_MIGRATE},
    {"ghost.drain", GHOST_CONTROL_DRAIN},
};

/* What these directives ask for; 0: nothing of ours; negative: with a value that is no text. */
static int read_directives(const pmix_info_t directives[], size_t ndirs,
                           ghost_job_control_t* asked) {
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; ++i) {
        const pmix_info_t* found = find(directives, ndirs, acts[i].key);
        if (!found) continue;
        asked->act = acts[i].act;
        asked->node = GHOST_CONTROL_CHECKPOINT == asked->act ? "" : text_of(found);
        asked->then = text_of(find(directives, ndirs, "ghost.then"));
        asked->mode = text_of(find(directives, ndirs, "ghost.mode"));
        return asked->node && asked->then && asked->mode ? 1 : -1;
    }
    return 0;
}

/* The targets are single ranks of one job; a new array of them, NULL: they are not. */
static uint32_t* read_targets(const pmix_proc_t targets[], size_t ntargets,
                              ghost_job_control_t* asked) {
    uint32_t* ranks = malloc((ntargets + 1) * sizeof *ranks);
    asked->of = ntargets > 0 ? targets[0].nspace : "";
    for (size_t i = 0; ranks && i < ntargets; ++i) {
        if (PMIX_RANK_IS_VALID(targets[i].rank) &&
            PMIX_CHECK_NSPACE(targets[i].nspace, asked->of)) {
            ranks[i] = targets[i].rank;
            continue;
        }
        free(ranks);
        ranks = NULL;
    }
    asked->ranks = ranks;
    asked->count = ntargets;
    return ranks;
}

static pmix_status_t hand_on(const ghost_job_control_t* asked, pmix_info_cbfunc_t done,
                             void* data) {
    pmix_status_t rc = PMIX_ERR_NOT_SUPPORTED;
    pthread_mutex_lock(&guard);
    if (handler) {
        request_t* request = PMIX_NEW(request_t);
        request->done = done;
        request->data = data;
        handler(handler_context, asked, request);
        rc = PMIX_SUCCESS;
    }
    pthread_mutex_unlock(&guard);
    return rc;
}

static pmix_status_t control_job(const pmix_proc_t* requester, const pmix_proc_t targets[],
                                 size_t ntargets, const pmix_info_t directives[], size_t ndirs,
                                 pmix_info_cbfunc_t done, void* data) {
    ghost_job_control_t asked = {.space = requester->nspace, .rank = requester->rank, .of = ""};
    const int ours = read_directives(directives, ndirs, &asked);
    if (ours < 0) return PMIX_ERR_BAD_PARAM;
    if (0 == ours)
        return stock ? stock(requester, targets, ntargets, directives, ndirs, done, data)
                     : PMIX_ERR_NOT_SUPPORTED;
    /* a snapshot is of the whole job, a drain of a node */
    if (GHOST_CONTROL_MIGRATE != asked.act) return hand_on(&asked, done, data);
    uint32_t* ranks = read_targets(targets, ntargets, &asked);
    if (!ranks) return PMIX_ERR_BAD_PARAM;
    const pmix_status_t rc = hand_on(&asked, done, data);
    free(ranks);
    return rc;
}

static void answer(int fd, short flags, void* given) {
    request_t* request = given;
    (void)fd, (void)flags;
    PMIX_ACQUIRE_OBJECT(request);
    request->done(request->failed ? PMIX_ERROR : PMIX_SUCCESS, NULL, 0, request->data, NULL, NULL);
    PMIX_RELEASE(request);
}

void ghost_pmix_install_job_control(void) {
    if (pmix_host_server.job_control == control_job) return;
    stock = pmix_host_server.job_control;
    pmix_host_server.job_control = control_job;
}

void ghost_pmix_on_job_control(ghost_job_control_fn wanted, void* context) {
    pthread_mutex_lock(&guard);
    handler = wanted;
    handler_context = context;
    pthread_mutex_unlock(&guard);
}

void ghost_pmix_answer_job_control(void* given, int failed) {
    request_t* request = given;
    request->failed = failed;
    PMIX_THREADSHIFT(request, answer);
}

const char* ghost_pmix_version(void) {
    return PMIx_Get_version();
}
