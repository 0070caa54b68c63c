/* A rank that only makes fences: orte4_rank FENCES STOPS FIRST CODE
 * says a line for each fence it has passed, halts for good before each fence in the list STOPS that
 * is past FIRST (its stand-in begins there: FIRST > 0 waits for a message on descriptor 3), reads
 * one line of input at the end if it is rank 0, and exits with CODE. */
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
        if (PMIX_SUCCESS != PMIx_Fence(NULL, 0, NULL, 0)) return 5;
        printf("rank %u passed %d\n", me.rank, fence);
    }
    if (0 == me.rank && fgets(line, sizeof line, stdin)) printf("rank 0 read %s", line);
    PMIx_Finalize(NULL, 0);
    return me.rank == mover ? atoi(argv[4]) : 0;
}
