/* SPDX-License-Identifier: BSD-3-Clause */
/* The PMIx client of this process: taking it off its server and putting it on another one.
 *
 * The only file pair that knows the layouts of libpmix 4.2; C, because PMIx's internal headers do
 * not compile as C++. Everything runs on the PMIx progress thread, which owns the structures, while
 * the calling thread waits with a limit. One caller at a time (the rank agent's thread).
 *
 * open --gate--> gated --close--> closed --attach--> open, and gated --ungate--> open.
 * An application may call PMIx in every state: what it sends is queued and goes out afterwards.
 */
#ifndef KERNET_BTL_AGENT_PMIX_H
#define KERNET_BTL_AGENT_PMIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum kernet_pmix_status {
    KERNET_PMIX_OK = 0,
    KERNET_PMIX_BUSY = 1,     /* something is in flight; the same call may work a moment later */
    KERNET_PMIX_FAILED = -1,  /* see why; the state is what it was before */
    KERNET_PMIX_TIMEOUT = -2, /* the progress thread did not get to it; nothing was changed */
};

/* Holds one line about the last failure. */
struct kernet_pmix_why {
    char text[200];
};

/* OK if the libpmix in this process is one whose layouts are known (4.2.x) and a client of a server
 * runs on it. From here on programs that the process starts do not inherit its socket. */
int kernet_pmix_supported(struct kernet_pmix_why* why);

/* Stops sending and receiving; the socket stays open. OK: *tag is 0 if the process is outside PMIx,
 * else the tag of the one call it waits in. BUSY: several calls or half a message in flight. */
int kernet_pmix_gate(uint32_t* tag, int limit_ms, struct kernet_pmix_why* why);

/* Undoes the gate. */
int kernet_pmix_ungate(int limit_ms, struct kernet_pmix_why* why);

/* Closes the socket to the server, which must have dropped this client already. */
int kernet_pmix_close(int limit_ms, struct kernet_pmix_why* why);

/* Connects to the server at `uri` ("name space.rank;tcp4://host:port"). With `resend` the fence the
 * process was in at the gate is asked for again, under its old tag. Event registrations are
 * replayed, what was queued meanwhile goes out. Begins the work and returns; finish by
 * kernet_pmix_attach_wait() with the handle. NULL: out of memory or wrong state. */
struct kernet_pmix_op;
struct kernet_pmix_op* kernet_pmix_attach_begin(const char* uri, bool resend,
                                                struct kernet_pmix_why* why);
/* Waits up to wait_us. BUSY: not done yet, call again. Any other result ends the operation and
 * frees the handle; with give_up the wait is over even if the work had not begun (TIMEOUT). */
int kernet_pmix_attach_wait(struct kernet_pmix_op* op, int64_t wait_us, bool give_up,
                            struct kernet_pmix_why* why);

/* Sends everything this process has published to the server again; it knows none of it. Call it
 * once the node agent has been told "attached", or others' PMIx_Get of these keys waits. */
int kernet_pmix_recommit(int limit_ms, struct kernet_pmix_why* why);

/* In a child of the process, after fork(2): closes its copy of the socket, which nothing there
 * reads. Async-signal-safe. */
void kernet_pmix_forked(void);

#ifdef __cplusplus
}
#endif

#endif
