/* SPDX-License-Identifier: BSD-3-Clause */
/* Windows of Open MPI's osc rdma without memory that ranks of a node share. */
#ifndef KERNET_BTL_WINDOWS_H
#define KERNET_BTL_WINDOWS_H

#include <stdbool.h>

#include "opal_config.h"

BEGIN_C_DECLS

/* From here on each rank of a window of osc rdma is a node of its own to it. False: this could not be
 * arranged (it is built in another way), and osc rdma must not be used. */
bool kernet_windows_without_sharing(void);

END_C_DECLS
#endif
