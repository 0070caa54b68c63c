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
    pmix_info_t why;
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

static const char* text_of(const pmix_info_t* info) {
    return info && PMIX_STRING == info->value.type && info->value.data.string
               ? info->value.data.string
               : "";
}

static pmix_status_t control_job(const pmix_proc_t* requester, const pmix_proc_t targets[],
                                 size_t ntargets, const pmix_info_t directives[], size_t ndirs,
                                 pmix_info_cbfunc_t done, void* data) {
    if (!find(directives, ndirs, PMIX_JOB_CTRL_CHECKPOINT))
        return stock ? stock(requester, targets, ntargets, directives, ndirs, done, data)
                     : PMIX_ERR_NOT_SUPPORTED;
    pmix_status_t rc = PMIX_ERR_NOT_SUPPORTED;
    pthread_mutex_lock(&guard);
    if (handler) {
        request_t* request = PMIX_NEW(request_t);
        request->done = done;
        request->data = data;
        handler(handler_context, requester->nspace, text_of(find(directives, ndirs, "ghost.then")),
                request);
        rc = PMIX_SUCCESS;
    }
    pthread_mutex_unlock(&guard);
    return rc;
}

static void answer(int fd, short flags, void* given) {
    request_t* request = given;
    (void)fd, (void)flags;
    PMIX_ACQUIRE_OBJECT(request);
    if (request->failed) {
        request->done(PMIX_ERROR, &request->why, 1, request->data, NULL, NULL);
        PMIX_INFO_DESTRUCT(&request->why);
    } else {
        request->done(PMIX_SUCCESS, NULL, 0, request->data, NULL, NULL);
    }
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

void ghost_pmix_answer_job_control(void* given, const char* why) {
    request_t* request = given;
    request->failed = why[0] != 0;
    if (request->failed) PMIX_INFO_LOAD(&request->why, "ghost.why", why, PMIX_STRING);
    PMIX_THREADSHIFT(request, answer);
}

const char* ghost_pmix_version(void) {
    return PMIx_Get_version();
}
