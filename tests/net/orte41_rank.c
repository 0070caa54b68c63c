/* SPDX-License-Identifier: BSD-3-Clause */
/* A rank that only makes fences: orte41_rank FENCES STOPS FIRST CODE MOVER [NAMED]
 * says a line for each fence it has passed, halts for good before each fence in the list STOPS that
 * is past FIRST (its stand-in begins there: FIRST > 0 waits for a message on descriptor 3), reads
 * one line of input at the end if it is rank 0, and exits with CODE. MOVER is the rank that halts.
 * With their number as NAMED, the ranks are named one by one in each fence. */
#include <pmix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int listed(const char* list, int number) {
    char copy[100];
    snprintf(copy, sizeof copy, "%s", list);
    for (char* word = strtok(copy, ","); word; word = strtok(NULL, ","))
        if (atoi(word) == number) return 1;
    return 0;
}

static void halt(const char* folder, unsigned rank, int fence) {
    char path[300];
    snprintf(path, sizeof path, "%s/halted.%u.%d", folder, rank, fence);
    FILE* file = fopen(path, "w");
    if (file) fclose(file);
    for (;;) pause();
}

static int fence_all(const pmix_proc_t* me, int ranks) {
    pmix_proc_t all[16];
    for (int i = 0; i < ranks; ++i) PMIX_LOAD_PROCID(&all[i], me->nspace, i);
    return PMIX_SUCCESS == PMIx_Fence(ranks ? all : NULL, ranks, NULL, 0);
}

int main(int argc, char** argv) {
    if (argc < 6) return 2;
    const int fences = atoi(argv[1]), first = atoi(argv[3]);
    const unsigned mover = atoi(argv[5]);
    char packet[200], line[100];
    pmix_proc_t me;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (first > 0 && read(3, packet, sizeof packet) <= 0) return 3;
    if (PMIX_SUCCESS != PMIx_Init(&me, NULL, 0)) return 4;
    for (int fence = first; fence < fences; ++fence) {
        if (me.rank == mover && fence > first && listed(argv[2], fence))
            halt(getenv("OMPI_MCA_ghost_test"), me.rank, fence);
        if (!fence_all(&me, argc > 6 ? atoi(argv[6]) : 0)) return 5;
        printf("rank %u passed %d\n", me.rank, fence);
    }
    if (0 == me.rank && fgets(line, sizeof line, stdin)) printf("rank 0 read %s", line);
    PMIx_Finalize(NULL, 0);
    return me.rank == mover ? atoi(argv[4]) : 0;
}
