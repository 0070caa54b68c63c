/* SPDX-License-Identifier: BSD-3-Clause */
/* A filter of one's own for Ghost's streams: every byte is added a number to (the option, 1 if there
 * is none), and four bytes behind the message tell whether it has come as it went.
 *
 *   gcc -shared -fPIC -I.../include -o checked_filter.so checked_filter.c
 *   mpirun --mca ghost 1 --mca ghost_filters so:/path/checked_filter.so=7 ...
 */
#include <stdlib.h>
#include <string.h>

#ifdef GHOST_FILTER_IN_TREE
#include "kernet-btl/include/ghost/ghost_filter.h"
#else
#include <ghost/ghost_filter.h>
#endif

struct state {
    unsigned char add;
};

static uint32_t sum_of(const unsigned char *bytes, size_t size, uint64_t number) {
    uint32_t a = 1 + (uint32_t)number, b = 0;
    for (size_t i = 0; i < size; i++) {
        a += bytes[i];
        b += a;
    }
    return b << 16 | (a & 0xffff);
}

static void *open_socket(const struct ghost_filter_socket *socket) {
    struct state *state = malloc(sizeof *state);
    if (!state) return NULL;
    state->add = socket->option[0] ? (unsigned char)atoi(socket->option) : 1;
    return state;
}

static void close_socket(void *state) {
    free(state);
}

static size_t bound(void *state, size_t size) {
    (void)state;
    return size + sizeof(uint32_t);
}

static ssize_t encode(void *opaque, const struct ghost_filter_message *message, const void *in,
                      size_t size, void *out) {
    const struct state *state = opaque;
    const unsigned char *from = in;
    unsigned char *to = out;
    for (size_t i = 0; i < size; i++) to[i] = (unsigned char)(from[i] + state->add);
    const uint32_t sum = sum_of(from, size, message->number);
    memcpy(to + size, &sum, sizeof sum);
    return (ssize_t)(size + sizeof sum);
}

static ssize_t decode(void *opaque, const struct ghost_filter_message *message, const void *in,
                      size_t size, void *out, size_t room) {
    const struct state *state = opaque;
    const unsigned char *from = in;
    unsigned char *to = out;
    uint32_t sum;
    if (size < sizeof sum || size - sizeof sum > room) return -1;
    size -= sizeof sum;
    memcpy(&sum, from + size, sizeof sum);
    for (size_t i = 0; i < size; i++) to[i] = (unsigned char)(from[i] - state->add);
    return sum_of(to, size, message->number) == sum ? (ssize_t)size : -1;
}

static const struct ghost_filter filter = {
    .version = GHOST_FILTER_VERSION,
    .name = "checked/1",
    .open = open_socket,
    .close = close_socket,
    .bound = bound,
    .encode = encode,
    .decode = decode,
};

const struct ghost_filter *ghost_filter_get(void) {
    return &filter;
}
