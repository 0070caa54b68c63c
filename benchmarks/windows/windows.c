/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long one-sided operations take: each line is one way of using a window, by all ranks at once.
 *
 * usage: mpirun -np N windows ROUNDS
 * Rank 0 prints "NAME MICROSECONDS": the time of one operation, completion at the target included,
 * of the slowest rank. What arrived is looked at; a wrong value ends the job with status 1.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { long_words = 1 << 17 }; /* of 8 bytes: 1 MiB */

static int rank, ranks;
static MPI_Win window;
static double *mine, *source;

static void require(int holds, const char* what) {
    if (holds) return;
    fprintf(stderr, "windows: rank %d: wrong: %s\n", rank, what);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static int next(void) {
    return (rank + 1) % ranks;
}

static void put(int words) {
    MPI_Put(source, words, MPI_DOUBLE, next(), 0, words, MPI_DOUBLE, window);
    MPI_Win_flush(next(), window);
}

static void get(int words) {
    source[words - 1] = -1;
    MPI_Get(source, words, MPI_DOUBLE, next(), 0, words, MPI_DOUBLE, window);
    MPI_Win_flush(next(), window);
    require(source[words - 1] != -1, "what was got");
}

static void accumulate(int words) {
    MPI_Accumulate(source, words, MPI_DOUBLE, next(), 0, words, MPI_DOUBLE, MPI_SUM, window);
    MPI_Win_flush(next(), window);
}

static void fetch(int words) {
    double was = -1;
    (void)words;
    MPI_Fetch_and_op(source, &was, MPI_DOUBLE, next(), 0, MPI_SUM, window);
    MPI_Win_flush(next(), window);
    require(was >= 0, "what was fetched");
}

static void contend(int words) {
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, 0, 0, window);
    MPI_Put(source, words, MPI_DOUBLE, 0, 0, words, MPI_DOUBLE, window);
    MPI_Win_unlock(0, window);
}

static void fence(int words) {
    MPI_Win_fence(0, window);
    MPI_Put(source, words, MPI_DOUBLE, next(), 0, words, MPI_DOUBLE, window);
    MPI_Win_fence(0, window);
}

static const struct line {
    const char* name;
    void (*operate)(int words);
    int words, part; /* of the rounds: one in so many */
    int locked;      /* all ranks hold all locks, shared */
} lines[] = {
    {"put-8", put, 1, 1, 1},
    {"put-64K", put, 1 << 13, 4, 1},
    {"put-1M", put, long_words, 40, 1},
    {"get-8", get, 1, 1, 1},
    {"get-1M", get, long_words, 40, 1},
    {"fetch-and-op", fetch, 1, 1, 1},
    {"accumulate-8", accumulate, 1, 1, 1},
    {"accumulate-64K", accumulate, 1 << 13, 20, 1},
    {"accumulate-1M", accumulate, long_words, 100, 1},
    {"fence-put-8", fence, 1, 2, 0},
    {"exclusive-put-8", contend, 1, 10, 0},
    {"exclusive-put-64K", contend, 1 << 13, 10, 0},
};

static void measure(const struct line* line, int rounds) {
    const int count = rounds / line->part > 0 ? rounds / line->part : 1;
    double began, took, slowest;
    for (int i = 0; i < long_words; i++) mine[i] = 0, source[i] = 1;
    MPI_Win_fence(0, window);
    if (line->locked) MPI_Win_lock_all(0, window);
    line->operate(line->words); /* connections are made, buffers allocated */
    MPI_Barrier(MPI_COMM_WORLD);
    began = MPI_Wtime();
    for (int i = 0; i < count; i++) line->operate(line->words);
    took = (MPI_Wtime() - began) / count * 1e6;
    MPI_Reduce(&took, &slowest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (line->locked) MPI_Win_unlock_all(window);
    MPI_Barrier(MPI_COMM_WORLD);
    if (line->operate == accumulate)
        require(mine[line->words - 1] == count + 1, "the sum of what was accumulated");
    if (line->operate == put || line->operate == fence)
        require(mine[line->words - 1] == 1, "what was put");
    if (rank == 0) printf("%s %.3f\n", line->name, slowest);
}

int main(int argc, char** argv) {
    const int rounds = argc == 2 ? atoi(argv[1]) : 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    source = malloc(long_words * sizeof *source);
    if (ranks < 2 || rounds <= 0 || !source) {
        if (rank == 0) fprintf(stderr, "usage: mpirun -np N windows ROUNDS, N at least 2\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    MPI_Win_allocate(long_words * sizeof *mine, sizeof *mine, MPI_INFO_NULL, MPI_COMM_WORLD, &mine,
                     &window);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) measure(&lines[i], rounds);
    MPI_Win_free(&window);
    free(source);
    MPI_Finalize();
    return 0;
}
