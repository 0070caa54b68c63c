/* SPDX-License-Identifier: BSD-3-Clause */
/* PMIx_Job_control_nb() with PMIX_JOB_CTRL_CHECKPOINT, from tools and ranks of this node.
 *
 * The server's function is replaced by ours before anybody connects; what is not ours goes on to
 * the runtime's. Answers may be given on any thread. */
#ifndef GHOST_PMIX_JOB_CONTROL_H
#define GHOST_PMIX_JOB_CONTROL_H

#ifdef __cplusplus
#define GHOST_NOEXCEPT noexcept
extern "C" {
#else
#define GHOST_NOEXCEPT
#endif

/* Called on PMIx's progress thread. `space` is the requester's name space, `then` the directive
 * "ghost.then" or "". `request` is to be answered once. */
typedef void (*ghost_job_control_fn)(void* context, const char* space, const char* then,
                                     void* request);

/* Replaces the server's function; call on the thread that starts the server, before it listens. */
void ghost_pmix_install_job_control(void) GHOST_NOEXCEPT;

/* Who takes the requests from now on; NULL: they are answered "not supported" again. */
void ghost_pmix_on_job_control(ghost_job_control_fn handler, void* context) GHOST_NOEXCEPT;

/* Answers: an empty `why` is success, else a failure with `why` as its information "ghost.why". */
void ghost_pmix_answer_job_control(void* request, const char* why) GHOST_NOEXCEPT;

/* libpmix's version as text. */
const char* ghost_pmix_version(void) GHOST_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
