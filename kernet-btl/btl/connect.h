/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls of the runtime in which ranks wait for each other and Open MPI makes no progress meanwhile.
 */
#ifndef KERNET_BTL_CONNECT_H
#define KERNET_BTL_CONNECT_H

#include "opal_config.h"

BEGIN_C_DECLS

/* From here on messages go on while this process waits in PMIx_Connect (MPI_Comm_spawn, accept and
 * connect) for the others: with Ghost it waits for all of them (pmix-plugin/runtime/pmix/
 * pmix_collectives.h), and one of them may wait for a message that is still being sent here. */
void kernet_connect_with_progress(void);
/* As it was before; nothing if it was not called. */
void kernet_connect_as_stock(void);

END_C_DECLS
#endif
