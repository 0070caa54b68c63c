/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A job whose ranks each talk to one other only: rank 2n and rank 2n+1 exchange messages of several
 * sizes, one by one checked. start_up measures how long that takes to start and what the ranks hold.
 *
 * usage: mpirun -np N neighbours [FILE]
 * Every rank prints "init RANK SECONDS" (time of day at which MPI_Init had returned). With FILE it
 * prints "ready RANK BYTES" (of the heap in use) after the exchange and waits, without MPI, until
 * FILE exists. Ends 1 if a message was not what was sent.
 */
#include <malloc.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { largest = 1 << 20, tag = 3 };

static double time_of_day(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Returns how many messages were wrong. */
static int exchange(int rank, int other)
{
    static unsigned char out[largest], in[largest];
    int wrong = 0;
    for (int bytes = 8; bytes <= largest; bytes *= 8) {
        memset(out, rank % 251, (size_t)bytes);
        memset(in, 255, (size_t)bytes);
        MPI_Sendrecv(out, bytes, MPI_BYTE, other, tag, in, bytes, MPI_BYTE, other, tag,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        for (int i = 0; i < bytes; i++)
            if (in[i] != other % 251) {
                wrong++;
                break;
            }
    }
    return wrong;
}

int main(int argc, char **argv)
{
    int rank, ranks, wrong = 0;
    MPI_Init(&argc, &argv);
    double began = time_of_day();
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    printf("init %d %.6f\n", rank, began);
    if ((rank ^ 1) < ranks)
        wrong = exchange(rank, rank ^ 1);
    if (argc > 1) {
        printf("ready %d %zu\n", rank, mallinfo2().uordblks);
        fflush(stdout);
        while (access(argv[1], F_OK) != 0)
            usleep(20000);
    }
    MPI_Finalize();
    if (wrong)
        fprintf(stderr, "neighbours: rank %d: %d messages were wrong\n", rank, wrong);
    return wrong ? 1 : 0;
}
