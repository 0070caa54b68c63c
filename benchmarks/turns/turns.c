/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ping-pong on demand, so that two jobs can be measured in turns of milliseconds: on a machine
 * whose processors change places in phases of seconds, two runs after one another say little.
 *
 * usage: mpirun -np 2 turns LARGEST [stream]
 * Rank 0 reads lines "BYTES COUNT" from standard input, sends so many messages there and back and
 * prints the time of one way in microseconds. With "stream" they go one way, one behind the other,
 * and the last is answered. Between lines both sleep. At the end of the input both end.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { order_tag = 1, tag = 2 };

struct order {
    int64_t bytes, count; /* count 0: the end */
};

static char* buffer;
static int stream;

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double one_way(int rank, int bytes, int64_t count) {
    const double began = now_us();
    for (int64_t i = 0; i < count; ++i) {
        if (rank == 0) MPI_Send(buffer, bytes, MPI_BYTE, 1, tag, MPI_COMM_WORLD);
        if (rank == 1)
            MPI_Recv(buffer, bytes, MPI_BYTE, 0, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    if (rank == 1) MPI_Send(buffer, 0, MPI_BYTE, 0, tag, MPI_COMM_WORLD);
    if (rank == 0) MPI_Recv(buffer, 0, MPI_BYTE, 1, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return (now_us() - began) / (double)count;
}

static double exchange(int rank, int bytes, int64_t count) {
    if (stream) return one_way(rank, bytes, count);
    const double began = now_us();
    for (int64_t i = 0; i < count; ++i) {
        if (rank == 0) MPI_Send(buffer, bytes, MPI_BYTE, 1, tag, MPI_COMM_WORLD);
        MPI_Recv(buffer, bytes, MPI_BYTE, 1 - rank, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (rank == 1) MPI_Send(buffer, bytes, MPI_BYTE, 0, tag, MPI_COMM_WORLD);
    }
    return (now_us() - began) / (double)(2 * count);
}

/* A tenth more before the clock runs: caches, and processors that have slept. */
static double measure(int rank, struct order order) {
    exchange(rank, (int)order.bytes, order.count / 10 + 1);
    return exchange(rank, (int)order.bytes, order.count);
}

static void ask(int64_t largest) {
    struct order order;
    long long bytes, count;
    while (scanf("%lld %lld", &bytes, &count) == 2 && bytes >= 0 && bytes <= largest && count > 0) {
        order.bytes = bytes;
        order.count = count;
        MPI_Send(&order, sizeof order, MPI_BYTE, 1, order_tag, MPI_COMM_WORLD);
        printf("%.4f\n", measure(0, order));
        fflush(stdout);
    }
    order.count = 0;
    MPI_Send(&order, sizeof order, MPI_BYTE, 1, order_tag, MPI_COMM_WORLD);
}

static void answer(void) {
    for (;;) {
        struct order order;
        int there = 0;
        MPI_Iprobe(0, order_tag, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
        if (!there) {
            usleep(1000);
            continue;
        }
        MPI_Recv(&order, sizeof order, MPI_BYTE, 0, order_tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (order.count == 0) return;
        measure(1, order);
    }
}

int main(int argc, char** argv) {
    int rank = 0, size = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    const int64_t largest = argc >= 2 ? atoll(argv[1]) : 0;
    stream = argc == 3 && strcmp(argv[2], "stream") == 0;
    if (size != 2 || largest <= 0 || argc > 2 + stream) {
        if (rank == 0) fprintf(stderr, "usage: mpirun -np 2 turns LARGEST [stream]\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    buffer = malloc((size_t)largest);
    if (!buffer) MPI_Abort(MPI_COMM_WORLD, 1);
    memset(buffer, 1, (size_t)largest);
    if (rank == 0)
        ask(largest);
    else
        answer();
    free(buffer);
    MPI_Finalize();
    return 0;
}
