/* SPDX-License-Identifier: BSD-3-Clause */
/* A user's own filter of Ghost's streams: a shared object that mpirun's --mca ghost_filters names by
 * "so:/PATH" or "so:/PATH=OPTION". It exports one function, ghost_filter_get(). docs/FILTERS.md has
 * the rules and an example.
 *
 * Calls for one state come one at a time, from whichever thread of the rank is in MPI. They must not
 * block, call MPI or throw. The memory of a state goes along when the rank moves; the shared object
 * must be at the same path everywhere. */
#ifndef GHOST_FILTER_H
#define GHOST_FILTER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GHOST_FILTER_VERSION 1

/* Whose state it is. */
struct ghost_filter_socket {
    const char *job;     /* the job's number */
    uint32_t rank;       /* this process */
    uint32_t peer;       /* the other end of the stream */
    const char *option;  /* what follows the path, "" if nothing does */
};

/* The place of some bytes in a stream; the same at both ends. */
struct ghost_filter_message {
    uint32_t from;    /* sender's rank */
    uint32_t to;      /* receiver's rank */
    uint64_t number;  /* counts up from 1 in each direction; one is never given to other bytes */
    uint8_t tag;      /* the upper layer's */
    uint8_t part;     /* 0 a message, 1 and 2 the beginning of a long one, 3 a piece of it */
};

struct ghost_filter {
    uint32_t version; /* GHOST_FILTER_VERSION */
    /* Name and version of the filter: both ends must have the same, or no link is made. */
    const char *name;
    /* The state of one socket, which all other functions get; NULL: there is no memory for it. */
    void *(*open)(const struct ghost_filter_socket *socket);
    void (*close)(void *state);
    /* The most bytes encode() makes of `size`; the same for the same size. */
    size_t (*bound)(void *state, size_t size);
    /* Bytes on their way out. `out` has room for bound(size) and does not overlap. Returns how many
     * it made. A message that cannot be encoded could not be sent: less than 0 ends the process. */
    ssize_t (*encode)(void *state, const struct ghost_filter_message *message, const void *in,
                      size_t size, void *out);
    /* Bytes that came in. Returns how many it made, at most `room`; less than 0 if these are not
     * what the peer's encode() made: the link is dropped then and the bytes are sent again. */
    ssize_t (*decode)(void *state, const struct ghost_filter_message *message, const void *in,
                      size_t size, void *out, size_t room);
    /* May be NULL. The process is about to stand, and must hold nothing but memory until wakeup():
     * no descriptor, no shared mapping. It may go on from here more than once (restarts). */
    void (*suspend)(void *state);
    void (*wakeup)(void *state);
};

/* What the shared object exports. The structure stays valid for ever. NULL: it cannot be used. */
__attribute__((visibility("default"))) const struct ghost_filter *ghost_filter_get(void);

#ifdef __cplusplus
}
#endif
#endif
