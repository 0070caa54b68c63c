/* SPDX-License-Identifier: BSD-3-Clause */
/* A rank that dies in a job which recovers (libpmix 4.2, internal structures). The server would
 * tell nobody, and complete fences without it: the ranks that are left would pass MPI_Finalize, and
 * there would be nothing to go on with. PMIx's progress thread, but for the first. */
#ifndef GHOST_PMIX_RECOVERY_H
#define GHOST_PMIX_RECOVERY_H

#include "src/include/pmix_config.h"

#include "src/server/pmix_server_ops.h"

/* The end of a connection without PMIx_Finalize is kept quiet from now on, until the runtime says
 * what it was. Once, before the first client comes. */
void ghost_pmix_install_recovery(void);

/* A call of that name space that is about to be contributed to lacks a rank which has died here. */
int ghost_pmix_lacks_ranks(const char* space, const pmix_info_t info[], size_t ninfo);

#endif
