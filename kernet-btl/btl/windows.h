/* SPDX-License-Identifier: BSD-3-Clause */
/* Windows of Open MPI's osc rdma without memory that ranks of a node share, and those of osc sm, whose
 * purpose that memory is. */
#ifndef KERNET_BTL_WINDOWS_H
#define KERNET_BTL_WINDOWS_H

#include <stdbool.h>

#include "opal_config.h"

BEGIN_C_DECLS

/* From here on each rank of a window of osc rdma is a node of its own to it. False: this could not be
 * arranged (it is built in another way), and osc rdma must not be used. */
bool kernet_windows_without_sharing(void);

/* From here on MPI_Win_allocate_shared asks where its ranks are now, not where they were started: one
 * that has moved could not find the memory, and the others would wait for it. While it is made they
 * stay; afterwards whoever wants to move one of them sees the memory. */
void kernet_windows_shared_where_ranks_are(void);

/* From here on accumulates of windows of osc rdma are ours: accumulate.h. */
void kernet_windows_with_updates(void);

END_C_DECLS
#endif
