// SPDX-License-Identifier: BSD-3-Clause
// ORTE's and OPAL's headers of Open MPI 4.1 in one place. Included by the files of this folder
// only; never together with PMIx's. They are C and not clean under -Wpedantic.
#pragma once
#pragma GCC system_header

#include "orte_config.h"

// first, and so: its functions are declared as C++'s otherwise
extern "C" {
#include "orte/util/attr.h"
}

#include "opal/dss/dss.h"
#include "opal/mca/event/event.h"
#include "opal/mca/pmix/pmix.h"
#include "opal/util/show_help.h"
#include "orte/constants.h"
#include "orte/mca/errmgr/errmgr.h"
#include "orte/mca/grpcomm/base/base.h"
#include "orte/mca/grpcomm/grpcomm.h"
#include "orte/mca/odls/odls.h"
#include "orte/mca/plm/plm.h"
#include "orte/mca/odls/odls_types.h"
#include "orte/mca/regx/regx.h"
#include "orte/mca/rmaps/rmaps_types.h"
#include "orte/mca/rml/rml.h"
#include "orte/mca/routed/routed.h"
#include "orte/mca/schizo/schizo.h"
#include "orte/mca/state/state.h"
#include "orte/runtime/orte_globals.h"
#include "orte/runtime/orte_quit.h"
#include "orte/runtime/orte_wait.h"
#include "orte/runtime/runtime.h"
#include "orte/util/name_fns.h"

// Of orte/mca/odls/base/odls_private.h, which drags in a header that is no C++.
extern "C" void orte_odls_base_default_wait_local_proc(int fd, short flags, void* tracker);
// Of orte/mca/odls/base/base.h.
extern "C" void orte_odls_base_start_threads(orte_job_t* job);
