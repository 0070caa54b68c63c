/* SPDX-License-Identifier: BSD-3-Clause */
/* See ghost_mpi.h. What is held and who watches is this library's; the rank agent asks it by
 * ghost_mpi_stops() before it stops the rank. Requests go by PMIx, which Open MPI has begun. */
#include "kernet-btl/include/ghost_mpi.h"

#include <errno.h>
#include <pmix.h>
#include <pthread.h>

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static unsigned holds;
static int stopping;
static void (*call_before)(void*);
static void (*call_after)(void*, int);
static void* call_data;
static _Thread_local int calling; /* this thread calls one of them */

static int failed(int error) {
    errno = error;
    return -1;
}

int ghost_mpi_hold(void) {
    if (calling) return failed(EDEADLK);
    pthread_mutex_lock(&guard);
    while (stopping) pthread_cond_wait(&ended, &guard);
    ++holds;
    pthread_mutex_unlock(&guard);
    return 0;
}

int ghost_mpi_release(void) {
    pthread_mutex_lock(&guard);
    const int held = holds > 0;
    if (held) --holds;
    pthread_mutex_unlock(&guard);
    return held ? 0 : failed(EPERM);
}

static int ask(const char* key, const char* value) {
    pmix_info_t directive, *results = NULL;
    size_t count = 0;
    PMIX_INFO_LOAD(&directive, key, value, PMIX_STRING);
    const pmix_status_t rc = PMIx_Job_control(NULL, 0, &directive, 1, &results, &count);
    PMIX_INFO_DESTRUCT(&directive);
    if (results) PMIX_INFO_FREE(results, count);
    if (PMIX_SUCCESS == rc || PMIX_OPERATION_SUCCEEDED == rc) return 0;
    return failed(PMIX_ERR_NOT_SUPPORTED == rc || PMIX_ERR_INIT == rc ? ENOTSUP : EIO);
}

int ghost_mpi_move(const char* node) {
    return ask("ghost.migrate", node ? node : "");
}

int ghost_mpi_checkpoint(void) {
    return ask(PMIX_JOB_CTRL_CHECKPOINT, "");
}

int ghost_mpi_watch(void (*before)(void*), void (*after)(void*, int), void* data) {
    if (calling) return failed(EDEADLK);
    pthread_mutex_lock(&guard);
    while (stopping) pthread_cond_wait(&ended, &guard);
    call_before = before;
    call_after = after;
    call_data = data;
    pthread_mutex_unlock(&guard);
    return 0;
}

static int begin(void) {
    pthread_mutex_lock(&guard);
    const int may = 0 == holds;
    if (may) stopping = 1;
    pthread_mutex_unlock(&guard);
    return may ? 0 : -1;
}

/* Between begin() and end(), in which nobody changes who is called. */
static void before(void) {
    calling = 1;
    if (call_before) call_before(call_data);
    calling = 0;
}

static void after(int elsewhere) {
    calling = 1;
    if (call_after) call_after(call_data, elsewhere);
    calling = 0;
}

static void end(void) {
    pthread_mutex_lock(&guard);
    stopping = 0;
    pthread_cond_broadcast(&ended);
    pthread_mutex_unlock(&guard);
}

const struct ghost_mpi_stops* ghost_mpi_stops(void) {
    static const struct ghost_mpi_stops the_stops = {sizeof the_stops, begin, before, after, end};
    return &the_stops;
}
