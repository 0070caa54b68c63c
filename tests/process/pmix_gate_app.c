/* SPDX-License-Identifier: BSD-3-Clause */
/* An MPI program whose ranks gate and ungate their PMIx client, from a thread as the rank agent
 * does, in and out of fences that the main thread makes one after the other. Ends 0 if every fence
 * came through, in step, and each rank was seen both outside PMIx and inside a call. */
#include "kernet-btl/agent/agent_pmix.h"

#include <mpi.h>
#include <pmix.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { limit_ms = 5000 };

struct counts {
    unsigned outside, inside, busy, failed;
};

static atomic_bool finished;
static struct counts seen;
static unsigned wanted;

static void pause_us(long us) {
    struct timespec t = {0, us * 1000};
    nanosleep(&t, NULL);
}

static void once(unsigned round) {
    struct kernet_pmix_why why = {{0}};
    uint32_t tag = 0;
    int rc = kernet_pmix_gate(&tag, limit_ms, &why);
    if (KERNET_PMIX_BUSY == rc) {
        ++seen.busy;
        return;
    }
    if (KERNET_PMIX_OK != rc) {
        fprintf(stderr, "gate: %d %s\n", rc, why.text);
        ++seen.failed;
        return;
    }
    if (tag != 0) {
        ++seen.inside;
    } else {
        ++seen.outside;
    }
    pause_us(round % 3 == 0 ? 1500 : 100); /* sometimes long enough for a whole call to queue */
    rc = kernet_pmix_ungate(limit_ms, &why);
    if (KERNET_PMIX_OK != rc) {
        fprintf(stderr, "ungate: %d %s\n", rc, why.text);
        ++seen.failed;
    }
}

static void* gate_thread(void* arg) {
    (void)arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (unsigned round = 0; !finished; ++round) {
        once(round);
        pause_us(300);
    }
    return NULL;
}

/* The states in which an operation has no place must be refused, not carried out. */
static unsigned check_order(void) {
    struct kernet_pmix_why why = {{0}};
    unsigned errors = 0;
    errors += KERNET_PMIX_FAILED != kernet_pmix_ungate(limit_ms, &why);
    errors += KERNET_PMIX_FAILED != kernet_pmix_close(limit_ms, &why);
    struct kernet_pmix_op* op = kernet_pmix_attach_begin("x.0;tcp4://127.0.0.1:1", false, &why);
    errors += NULL == op || KERNET_PMIX_FAILED != kernet_pmix_attach_wait(op, 5000000, true, &why);
    uint32_t tag = 1;
    errors += KERNET_PMIX_OK != kernet_pmix_gate(&tag, limit_ms, &why) || tag != 0;
    errors += KERNET_PMIX_FAILED != kernet_pmix_gate(&tag, limit_ms, &why);
    errors += KERNET_PMIX_OK != kernet_pmix_ungate(limit_ms, &why);
    errors += KERNET_PMIX_OK != kernet_pmix_recommit(limit_ms, &why);
    if (errors > 0) fprintf(stderr, "%u operations in the wrong state misbehave\n", errors);
    return errors;
}

static unsigned fences(int rank) {
    unsigned errors = 0;
    for (unsigned i = 0; i < wanted; ++i) {
        /* Uneven, so that a rank is often met waiting in the fence for the other one. */
        if (rank == (int)(i % 2)) pause_us(1000);
        pmix_status_t rc = PMIx_Fence(NULL, 0, NULL, 0);
        if (PMIX_SUCCESS != rc) {
            fprintf(stderr, "rank %d fence %u: %s\n", rank, i, PMIx_Error_string(rc));
            ++errors;
        }
    }
    return errors;
}

int main(int argc, char** argv) {
    int rank = 0;
    struct kernet_pmix_why why = {{0}};
    wanted = argc > 1 ? (unsigned)atoi(argv[1]) : 500;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (KERNET_PMIX_OK != kernet_pmix_supported(&why)) {
        fprintf(stderr, "%s\n", why.text);
        MPI_Abort(MPI_COMM_WORLD, 77);
    }
    unsigned errors = check_order();
    pthread_t thread;
    pthread_create(&thread, NULL, gate_thread, NULL);
    errors += fences(rank);
    finished = true;
    pthread_join(thread, NULL);
    printf("rank %d: %u fences, gated outside %u, inside %u, busy %u, failed %u\n", rank, wanted,
           seen.outside, seen.inside, seen.busy, seen.failed);
    fflush(stdout);
    errors += seen.failed;
    if (wanted >= 500) errors += seen.outside == 0 || seen.inside == 0;
    MPI_Finalize();
    return errors == 0 ? 0 : 1;
}
