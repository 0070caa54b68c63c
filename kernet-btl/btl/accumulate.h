/* SPDX-License-Identifier: BSD-3-Clause */
/* Windows of Open MPI's osc rdma whose accumulates are ours.
 *
 * osc rdma (Open MPI 4.1.4, ompi/mca/osc/rdma/osc_rdma_accumulate.c) locks the target, gets, reduces and puts
 * back, four ways over the wire for each, and takes elements for as long as their data: of types with
 * gaps (MPI_SHORT_INT, MPI_DOUBLE_INT, ...) it changes others. On one node a stock job never comes there. */
#ifndef KERNET_BTL_ACCUMULATE_H
#define KERNET_BTL_ACCUMULATE_H

#include "ompi_config.h"
#include "ompi/mca/osc/osc.h"

BEGIN_C_DECLS

/* `window` has been made by osc rdma. Number: the same at all its ranks, and no other open window's of
 * any of them. Collective; when it returns, all ranks take updates. */
int kernet_accumulate_here(struct ompi_win_t *window, uint64_t number, char *base, size_t size, size_t unit,
                           struct ompi_communicator_t *comm);

END_C_DECLS
#endif
