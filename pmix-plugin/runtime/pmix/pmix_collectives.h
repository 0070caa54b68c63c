/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls in which some processes, named one by one, wait for each other inside the runtime
 * (PMIx_Connect, as in MPI_Comm_spawn, accept and connect; PMIx_Disconnect; PMIx_Fence), while a
 * rank that takes part in one moves. Calls of a whole job: pmix_server.h.
 *
 * A daemon contributes once to such a call, when all participants it has have called. Where one of
 * them comes later, its call is a contribution of its own, which mpirun has to wait for
 * (fences.hpp). So that mpirun knows which these are before anybody takes the move for done, the
 * target makes no more contributions to calls of the rank from shortly before the switch on.
 *
 * Internal to pmix_server.c and this; PMIx's progress thread only, but for the first. */
#ifndef GHOST_PMIX_COLLECTIVES_H
#define GHOST_PMIX_COLLECTIVES_H

#include "src/include/pmix_config.h"

#include "src/include/pmix_globals.h"
#include "src/server/pmix_server_ops.h"

/* Takes the host's calls over, once. Open MPI 4.1 completes PMIx_Connect on each daemon as soon as
 * those there have called; from here on it waits for all participants, wherever they are. */
void ghost_pmix_install_collectives(void);

/* The processes by which daemons tell this call from others, in order: those it names, and in a
 * PMIx_Connect the first once more, since the runtime knows calls by nothing else and a fence of
 * the same processes may be under way in another thread. Writes at most `room`, returns how many.
 */
size_t ghost_pmix_signature(const pmix_server_trkr_t* tracker, pmix_proc_t* names, size_t room);

/* Contributes to a call if everybody here has made his and that has not been done. */
void ghost_pmix_contribute_if_due(pmix_server_trkr_t* tracker);

/* Is it such a call, and does the rank take part? */
int ghost_pmix_names(const pmix_server_trkr_t* tracker, const char* space, unsigned rank);

/* The rank is about to come here. -1: no memory. */
int ghost_pmix_expect_client(const char* space, unsigned rank);

/* It is here, or does not come. */
void ghost_pmix_expect_no_more(const char* space, unsigned rank);
/* None comes any more. */
void ghost_pmix_expect_nobody(void);

#endif
