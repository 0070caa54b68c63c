/* SPDX-License-Identifier: BSD-3-Clause */
/* Updates: operations of the accumulate family on a window of a peer, which the peer itself applies.
 *
 * Each is one message: what to do, where, and with what. The peer applies messages in the order in
 * which they were sent, one at a time, so each is atomic to the others, and MPI's order of
 * accumulates holds. docs/WIRE.md, "Updates". */
#ifndef KERNET_BTL_UPDATE_H
#define KERNET_BTL_UPDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernet-btl/btl/bridge.h"

BEGIN_C_DECLS

/* Data or answer of one message, bytes, and ranges that it may touch. */
enum { kernet_update_bytes = 64 * 1024, kernet_update_runs = 256 };

enum kernet_update_kind {
    kernet_update_accumulate = 1, /* no answer */
    kernet_update_fetch,          /* the answer is what was there */
    kernet_update_compare,        /* compare and swap: new value, expected value; the answer as above */
    kernet_update_flush           /* the answer says how all before it went */
};

/* Elements that lie one behind the other. */
typedef struct {
    int64_t offset; /* bytes, from the displacement */
    uint64_t count; /* elements */
} kernet_run_t;

/* In front of the runs, which are in front of the data: the elements of all runs as they lie in
 * memory. */
typedef struct {
    uint64_t cookie; /* of the answer */
    uint64_t window;
    int64_t displacement; /* in the window's units; of dynamic windows an address */
    uint32_t type;        /* Fortran's number of a predefined type */
    uint32_t operation;   /* ... of a predefined operation */
    uint32_t kind;
    uint32_t runs;
} kernet_update_t;

/* ---- update.c: windows of this process, and what peers do in them. Any thread. ---- */

typedef struct {
    uint64_t number;  /* the same at all its ranks */
    char *base;       /* null: dynamic, its memory is what is attached */
    size_t size;      /* bytes */
    size_t unit;      /* of displacements, bytes */
} kernet_memory_t;

/* From here on peers may change it. Memory: false without any. */
bool kernet_memory_open(const kernet_memory_t *memory);
void kernet_memory_close(uint64_t number);
/* Of a dynamic window. */
bool kernet_memory_attach(uint64_t number, void *base, size_t size);
void kernet_memory_detach(uint64_t number, const void *base);

/* Applies a message of `peer`. answer: room for what was there, *answered: bytes of it that are used.
 * 0, or MPI's error class: then nothing was changed. */
int kernet_update_apply(uint32_t peer, const void *message, size_t size, void *answer, size_t room,
                        size_t *answered);

/* ---- table.cpp ---- */

/* Sends one to `peer`, null: applies it in this process. callback: called by progress, or at once,
 * with OPAL_SUCCESS or MPI's error class when its answer is in `answer`, of which `expected` bytes are
 * wanted; null if there is to be none. OPAL_ERR_UNREACH if the peer has ended. */
int kernet_btl_update(struct mca_btl_base_endpoint_t *peer, const kernet_update_t *update,
                      const kernet_run_t *runs, const void *data, size_t bytes, void *answer,
                      size_t expected, mca_btl_base_rdma_completion_fn_t callback, void *context);
/* It has ended: nothing more will come from it. */
bool kernet_btl_is_gone(struct mca_btl_base_endpoint_t *peer);
/* So much waits for that peer that callers should let progress go on first. */
bool kernet_btl_holds_back(struct mca_btl_base_endpoint_t *peer);

END_C_DECLS
#endif
