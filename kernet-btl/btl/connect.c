/* SPDX-License-Identifier: BSD-3-Clause */
/* See connect.h. Open MPI 4.1.4 (ompi/dpm/dpm.c) calls opal_pmix.connect, which blocks in libpmix;
 * opal_pmix.connect_nb is the same request, answered on libpmix's thread. */
#include "kernet-btl/btl/connect.h"

#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include "opal/constants.h"
#include "opal/mca/pmix/pmix.h"
#include "opal/runtime/opal_progress.h"

/* Between two looks at messages: others may need the processor to get here. */
enum { pause_us = 100 };

static opal_pmix_base_module_connect_fn_t stock;

typedef struct {
    int status;
    atomic_bool done;
} answer_t;

static void answered(int status, void* given) {
    answer_t* answer = given;
    answer->status = status;
    atomic_store_explicit(&answer->done, true, memory_order_release);
}

static int connect_with_progress(opal_list_t* procs) {
    answer_t answer = {.status = OPAL_SUCCESS, .done = false};
    const int rc = opal_pmix.connect_nb(procs, answered, &answer);
    if (OPAL_SUCCESS != rc) return rc;
    while (!atomic_load_explicit(&answer.done, memory_order_acquire)) {
        opal_progress();
        usleep(pause_us);
    }
    return answer.status;
}

void kernet_connect_with_progress(void) {
    if (stock || !opal_pmix.connect || !opal_pmix.connect_nb) return;
    stock = opal_pmix.connect;
    opal_pmix.connect = connect_with_progress;
}

void kernet_connect_as_stock(void) {
    if (!stock) return;
    if (connect_with_progress == opal_pmix.connect) opal_pmix.connect = stock;
    stock = NULL;
}
