/* SPDX-License-Identifier: BSD-3-Clause */
/* Changes in this daemon's PMIx server (libpmix 4.2, internal structures) when a rank leaves or
 * joins.
 *
 * Each call runs its work on PMIx's progress thread and waits for it; call from the runtime's main
 * thread. `space` is the job's name space (its number in decimal).
 *
 * A fence in flight is right at any moment if the coordinator waits for as many contributions as
 * the daemons will make: every call below keeps "votes" true. A daemon contributes once, when all
 * its local ranks have called; a rank that joins after that contributes by itself ("late"). */
#ifndef GHOST_PMIX_SERVER_H
#define GHOST_PMIX_SERVER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define GHOST_NOEXCEPT noexcept
extern "C" {
#else
#define GHOST_NOEXCEPT
#endif

/* Source, while the rank is gated: forgets the connection, keeps every count. fence_tag is 0, or
 * the tag of the call the rank waits in, which must be one plain job-wide fence. 0 done, 1 the rank
 * is in another call, -1 no such name space or rank. */
int ghost_pmix_detach(const char* space, unsigned rank, unsigned fence_tag) GHOST_NOEXCEPT;

/* What ghost_pmix_detach() would answer now; changes nothing. */
int ghost_pmix_may_detach(const char* space, unsigned rank, unsigned fence_tag) GHOST_NOEXCEPT;

/* Source, at the switch: takes the rank out of the counts and of open fences. `late_pending`: it
 * came here during a fence of which it has not called yet. 0 done, -1 no such name space or rank.
 */
int ghost_pmix_leave(const char* space, unsigned rank, int late_pending) GHOST_NOEXCEPT;

/* Target, when all of the rank has arrived: from here on contributions of this daemon to calls that
 * name the rank wait (pmix_collectives.h), until ghost_pmix_join() or the end of the attempt is
 * followed by ghost_pmix_expect_rank_no_more(). */
void ghost_pmix_expect(const char* space, unsigned rank) GHOST_NOEXCEPT;
void ghost_pmix_expect_rank_no_more(const char* space, unsigned rank) GHOST_NOEXCEPT;

/* Of the calls that name the rank, that this daemon has contributed to, and that the rank has
 * (`called`) or has not called here: number `which`, from 0 on. Writes at most `room` of its
 * processes, in the order they are named by; returns how many these are, 0: there is no such call.
 */
struct ghost_pmix_name {
    uint32_t job, rank;
};
size_t ghost_pmix_contributed_call(const char* space, unsigned rank, int called, size_t which,
                                   struct ghost_pmix_name* names, size_t room) GHOST_NOEXCEPT;

/* Target, at the switch: registers the rank as a client and adds it to open calls. `object` is the
 * host's own, given back with each of the rank's requests. 1 if the daemon had already contributed
 * to an open fence of the job (the rank is late there), 0 if not, -1 the server refuses it.
 */
int ghost_pmix_join(const char* space, unsigned rank, void* object) GHOST_NOEXCEPT;

/* `known` says whether the runtime has heard of a process; asked on its main thread before a
 * PMIx_Connect waits for it. Without: all are taken for known. */
void ghost_pmix_ask_for_processes(int (*known)(uint32_t job, uint32_t rank)) GHOST_NOEXCEPT;

/* Target: 1 if the rank, late in a fence of the whole job, has called it now. */
int ghost_pmix_late_called(const char* space, unsigned rank) GHOST_NOEXCEPT;

/* Contributions this daemon makes to the fence that is open or comes next. */
int ghost_pmix_votes(const char* space) GHOST_NOEXCEPT;

/* Source, after an abort: calls of the rank that wait here belong to its new connection. Returns
 * how many. */
int ghost_pmix_reattach(const char* space, unsigned rank) GHOST_NOEXCEPT;

/* A recovery: a local rank that is dead is forgotten, with what is cached of it. How many
 * connections it had, -1 no such name space. */
int ghost_pmix_forget_rank(const char* space, unsigned rank) GHOST_NOEXCEPT;

/* Then: every call of the job that is open here, and what was asked for its ranks' data; whoever
 * called is dead. How many, -1 no such name space. */
int ghost_pmix_forget_calls(const char* space) GHOST_NOEXCEPT;

/* Writes what a rank needs to attach to this server (its PMIX_SERVER_URI41). 0 done, -1 unknown. */
int ghost_pmix_uri(char* uri, size_t size) GHOST_NOEXCEPT;

/* Writes counts and open fences in one line, for the log. */
void ghost_pmix_describe(const char* space, char* text, size_t size) GHOST_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
