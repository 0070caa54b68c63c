/* SPDX-License-Identifier: BSD-3-Clause */
/* Called by the schizo component once its parameters are registered: in `ompi_info --param ghost
 * all` shows them and ends the process; does nothing anywhere else. */
#ifndef GHOST_INFO_GHOST_H
#define GHOST_INFO_GHOST_H

void ghost_info_if_asked(void);

#endif
