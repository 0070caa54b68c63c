/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long a rank's partner waits when the rank is moved. Rank 0 sends 8 bytes to rank 1 and waits
 * for the answer, over and over; a gap is the time between two answers. NetPIPE cannot tell: it
 * prints the best of several trials.
 *
 * usage: mpirun -np 2 heartbeat CALM TOTAL   (seconds)
 * Rank 0 prints "calm" once CALM seconds have passed (time to start a migration), and after TOTAL
 * seconds one JSON object: beats, median_us (of the calm time), longest_calm_us, longest_us (after
 * it), and lost (answers that did not carry the number sent; anything but 0 is an error).
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { tag = 7, kept_beats = 100000 };

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void answer(void)
{
    int64_t number = 0;
    do {
        MPI_Recv(&number, 1, MPI_INT64_T, 0, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(&number, 1, MPI_INT64_T, 0, tag, MPI_COMM_WORLD);
    } while (number >= 0);
}

static int64_t beat(int64_t number)
{
    int64_t back = 0;
    MPI_Send(&number, 1, MPI_INT64_T, 1, tag, MPI_COMM_WORLD);
    MPI_Recv(&back, 1, MPI_INT64_T, 1, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return back;
}

static int measure(double calm_s, double total_s)
{
    static int64_t gaps[kept_beats];
    int64_t beats = 0, kept = 0, lost = 0, longest_calm = 0, longest = 0;
    int64_t begin = now_ns(), last = begin;
    int64_t calm_end = begin + (int64_t)(calm_s * 1e9), end = begin + (int64_t)(total_s * 1e9);
    int calm = 1;

    while (last < end) {
        lost += beat(beats) != beats;
        beats++;
        int64_t now = now_ns(), gap = now - last;
        last = now;
        if (!calm) {
            longest = gap > longest ? gap : longest;
            continue;
        }
        longest_calm = gap > longest_calm ? gap : longest_calm;
        if (kept < kept_beats)
            gaps[kept++] = gap;
        if (now >= calm_end) {
            calm = 0;
            printf("calm\n");
            fflush(stdout);
            last = now_ns(); /* printing is not part of a gap */
        }
    }
    beat(-1);
    qsort(gaps, (size_t)kept, sizeof gaps[0], by_size);
    printf("{\"beats\": %lld, \"median_us\": %.2f, \"longest_calm_us\": %.1f, \"longest_us\": %.1f, "
           "\"lost\": %lld}\n",
           (long long)beats, kept ? (double)gaps[kept / 2] / 1e3 : 0, (double)longest_calm / 1e3,
           (double)longest / 1e3, (long long)lost);
    return lost ? 1 : 0;
}

int main(int argc, char **argv)
{
    int rank, ranks, status = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (argc != 3 || ranks != 2) {
        if (rank == 0)
            fprintf(stderr, "usage: mpirun -np 2 heartbeat CALM TOTAL\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    if (rank == 0)
        status = measure(atof(argv[1]), atof(argv[2]));
    else
        answer();
    MPI_Finalize();
    return status;
}
