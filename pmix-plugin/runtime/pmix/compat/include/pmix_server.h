/* SPDX-License-Identifier: BSD-3-Clause */
/* PMIx's installed private headers still say "include/pmix_server.h", their path in its source tree. */
#include <pmix_server.h>
