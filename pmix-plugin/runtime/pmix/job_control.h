/* SPDX-License-Identifier: BSD-3-Clause */
/* PMIx_Job_control_nb() with PMIX_JOB_CTRL_CHECKPOINT, "ghost.migrate" or "ghost.drain", from tools
 * and ranks of this node.
 *
 * The server's function is replaced by ours before anybody connects; what is not ours goes on to
 * the runtime's. Answers may be given on any thread. */
#ifndef GHOST_PMIX_JOB_CONTROL_H
#define GHOST_PMIX_JOB_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define GHOST_NOEXCEPT noexcept
extern "C" {
#else
#define GHOST_NOEXCEPT
#endif

enum { GHOST_CONTROL_CHECKPOINT, GHOST_CONTROL_MIGRATE, GHOST_CONTROL_DRAIN };

/* What is asked for. Everything is valid during the call only; what was not given is "". */
typedef struct ghost_job_control {
    const char* space;     /* the requester's name space */
    uint32_t rank;         /* and its rank there */
    int act;               /* GHOST_CONTROL_... */
    const char* then;      /* "ghost.then" */
    const char* node;      /* the value of "ghost.migrate" or "ghost.drain" */
    const char* mode;      /* "ghost.mode" */
    const char* of;        /* the targets' name space; "" if they name none */
    const uint32_t* ranks; /* the targets, of "ghost.migrate" */
    size_t count;
} ghost_job_control_t;

/* Called on PMIx's progress thread. `request` is to be answered once. */
typedef void (*ghost_job_control_fn)(void* context, const ghost_job_control_t* asked,
                                     void* request);

/* Replaces the server's function; call on the thread that starts the server, before it listens. */
void ghost_pmix_install_job_control(void) GHOST_NOEXCEPT;

/* Who takes the requests from now on; NULL: they are answered "not supported" again. */
void ghost_pmix_on_job_control(ghost_job_control_fn handler, void* context) GHOST_NOEXCEPT;

/* Answers: PMIX_SUCCESS, or PMIX_ERROR. No reason goes with it: PMIx 4.2's client reads what is
 * behind a failure's status no more. */
void ghost_pmix_answer_job_control(void* request, int failed) GHOST_NOEXCEPT;

/* libpmix's version as text. */
const char* ghost_pmix_version(void) GHOST_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
