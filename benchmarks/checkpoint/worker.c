/* SPDX-License-Identifier: BSD-3-Clause */
/* worker MB DIRTY_MB_PER_S STATUS
 *
 * Every rank holds MB of incompressible memory, rewrites DIRTY_MB_PER_S of it every second, and takes
 * part in a barrier a hundred times a second. Rank 0 counts rounds in the file STATUS (8 bytes, in
 * place), so that a slow-down shows. Runs until it is ended. */
#include <fcntl.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t state = 88172645463325252ull;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    int rank = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (argc != 4) {
        if (rank == 0) fprintf(stderr, "usage: worker MB DIRTY_MB_PER_S STATUS\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    const size_t words = (size_t) atol(argv[1]) << 17;
    const size_t per_round = ((size_t) (atof(argv[2]) * 1048576) / 4096) / 100;
    state += (uint64_t) rank * 7919;
    uint64_t *memory = malloc(words * 8);
    if (!memory) MPI_Abort(MPI_COMM_WORLD, 1);
    for (size_t i = 0; i < words; ++i) memory[i] = next();
    const int fd = rank == 0 ? open(argv[3], O_RDWR | O_CREAT, 0644) : -1;
    const double begin = now();
    for (uint64_t round = 1;; ++round) {
        for (size_t i = 0; i < per_round && words >= 512; ++i)
            memory[next() % (words / 512) * 512] = round;
        MPI_Barrier(MPI_COMM_WORLD);
        if (fd >= 0 && pwrite(fd, &round, sizeof round, 0) != sizeof round) MPI_Abort(MPI_COMM_WORLD, 1);
        const double due = begin + (double) round / 100 - now();
        if (due > 0) usleep((useconds_t) (due * 1e6));
    }
}
