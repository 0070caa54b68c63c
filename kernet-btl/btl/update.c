/* SPDX-License-Identifier: BSD-3-Clause */
/* See update.h: memory of windows, and the operations of peers in it. */
#include "kernet-btl/btl/update.h"

#include <mpi.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ompi/datatype/ompi_datatype.h"
#include "opal/class/opal_hash_table.h"

typedef struct piece_t {
    struct piece_t *next;
    uintptr_t base;
    size_t size;
} piece_t;

typedef struct refused_t {
    struct refused_t *next;
    uint32_t peer;
    int error;
} refused_t;

typedef struct {
    kernet_memory_t memory;
    piece_t *attached;
    refused_t *refused; /* accumulates, of which the next flush is told */
} open_t;

/* Of the table and of everything in it. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static opal_hash_table_t table;
static bool made;

static open_t *find(uint64_t number)
{
    void *found = NULL;
    if (!made || OPAL_SUCCESS != opal_hash_table_get_value_uint64(&table, number, &found)) return NULL;
    return found;
}

bool kernet_memory_open(const kernet_memory_t *memory)
{
    open_t *opened = calloc(1, sizeof *opened);
    if (!opened) return false;
    opened->memory = *memory;
    pthread_mutex_lock(&mutex);
    if (!made) {
        OBJ_CONSTRUCT(&table, opal_hash_table_t);
        made = OPAL_SUCCESS == opal_hash_table_init(&table, 64);
    }
    const bool put = made && OPAL_SUCCESS == opal_hash_table_set_value_uint64(&table, memory->number, opened);
    pthread_mutex_unlock(&mutex);
    if (!put) free(opened);
    return put;
}

void kernet_memory_close(uint64_t number)
{
    pthread_mutex_lock(&mutex);
    open_t *closed = find(number);
    if (closed) opal_hash_table_remove_value_uint64(&table, number);
    pthread_mutex_unlock(&mutex);
    if (!closed) return;
    while (closed->attached) {
        piece_t *piece = closed->attached;
        closed->attached = piece->next;
        free(piece);
    }
    while (closed->refused) {
        refused_t *refused = closed->refused;
        closed->refused = refused->next;
        free(refused);
    }
    free(closed);
}

bool kernet_memory_attach(uint64_t number, void *base, size_t size)
{
    piece_t *piece = malloc(sizeof *piece);
    if (!piece) return false;
    *piece = (piece_t){.base = (uintptr_t) base, .size = size};
    pthread_mutex_lock(&mutex);
    open_t *window = find(number);
    if (window) {
        piece->next = window->attached;
        window->attached = piece;
    }
    pthread_mutex_unlock(&mutex);
    if (!window) free(piece);
    return NULL != window;
}

void kernet_memory_detach(uint64_t number, const void *base)
{
    piece_t *piece = NULL;
    pthread_mutex_lock(&mutex);
    open_t *window = find(number);
    for (piece_t **at = window ? &window->attached : NULL; at && *at; at = &(*at)->next) {
        if ((*at)->base != (uintptr_t) base) continue;
        piece = *at;
        *at = piece->next;
        break;
    }
    pthread_mutex_unlock(&mutex);
    free(piece);
}

/* Where a message's displacement is; run offsets and sizes are added to it with a look at the limits. */
static uintptr_t place_of(const open_t *window, int64_t displacement)
{
    return (uintptr_t) window->memory.base + (uintptr_t) displacement * window->memory.unit;
}

static bool inside(uintptr_t from, size_t size, uintptr_t base, size_t limit)
{
    return from >= base && size <= limit && from - base <= limit - size;
}

static bool covers(const open_t *window, uintptr_t from, size_t size)
{
    if (window->memory.base) return inside(from, size, (uintptr_t) window->memory.base, window->memory.size);
    for (const piece_t *piece = window->attached; piece; piece = piece->next)
        if (inside(from, size, piece->base, piece->size)) return true;
    return false;
}

/* A message, read and held against its own length. */
typedef struct {
    kernet_update_t head;
    const char *runs; /* not aligned */
    const char *data;
    size_t bytes; /* of data */
    MPI_Datatype type;
    MPI_Op operation;
    size_t extent, extent_of_last; /* of elements, bytes */
    size_t total;                  /* what its elements take, bytes */
} message_t;

static kernet_run_t run_of(const message_t *message, uint32_t number)
{
    kernet_run_t run;
    memcpy(&run, message->runs + number * sizeof run, sizeof run);
    return run;
}

static bool read_head(message_t *message, const char *bytes, size_t size)
{
    if (size < sizeof message->head) return false;
    memcpy(&message->head, bytes, sizeof message->head);
    size -= sizeof message->head;
    message->runs = bytes + sizeof message->head;
    if (message->head.runs > size / sizeof(kernet_run_t)) return false;
    message->data = message->runs + message->head.runs * sizeof(kernet_run_t);
    message->bytes = size - message->head.runs * sizeof(kernet_run_t);
    return message->head.kind >= kernet_update_accumulate && message->head.kind <= kernet_update_flush;
}

static bool read_type(message_t *message)
{
    MPI_Aint lower, extent, true_extent;
    message->type = PMPI_Type_f2c((MPI_Fint) message->head.type);
    message->operation = PMPI_Op_f2c((MPI_Fint) message->head.operation);
    if (MPI_DATATYPE_NULL == message->type || MPI_OP_NULL == message->operation ||
        !ompi_datatype_is_predefined(message->type))
        return false;
    PMPI_Type_get_extent(message->type, &lower, &extent);
    PMPI_Type_get_true_extent(message->type, &lower, &true_extent);
    message->extent = (size_t) extent;
    message->extent_of_last = (size_t) true_extent;
    return extent > 0 && true_extent > 0;
}

static bool read_lengths(message_t *message)
{
    const size_t most = kernet_update_bytes / message->extent;
    size_t elements = 0;
    for (uint32_t i = 0; i < message->head.runs; i++) {
        const kernet_run_t run = run_of(message, i);
        if (0 == run.count || run.count > most - elements) return false;
        elements += run.count;
    }
    message->total = elements * message->extent;
    if (kernet_update_compare == message->head.kind)
        return 1 == elements && message->bytes == 2 * message->extent;
    return message->bytes == (MPI_NO_OP == message->operation ? 0 : message->total);
}

static bool read_message(message_t *message, const char *bytes, size_t size)
{
    message->total = 0;
    if (!read_head(message, bytes, size)) return false;
    if (kernet_update_flush == message->head.kind) return 0 == message->head.runs && 0 == message->bytes;
    return read_type(message) && read_lengths(message);
}

static size_t size_of_run(const message_t *message, kernet_run_t run)
{
    return (run.count - 1) * message->extent + message->extent_of_last;
}

static bool covers_all(const open_t *window, const message_t *message)
{
    const uintptr_t from = place_of(window, message->head.displacement);
    for (uint32_t i = 0; i < message->head.runs; i++) {
        const kernet_run_t run = run_of(message, i);
        if (!covers(window, from + (uintptr_t) run.offset, size_of_run(message, run))) return false;
    }
    return true;
}

/* Operations expect elements where a compiler would put them. Under the mutex. */
static const char *aligned(const char *data, size_t size)
{
    static _Alignas(max_align_t) char copy[kernet_update_bytes];
    if (0 == (uintptr_t) data % _Alignof(max_align_t)) return data;
    return memcpy(copy, data, size);
}

static void change(const message_t *message, void *at, const char *data, kernet_run_t run)
{
    const size_t size = size_of_run(message, run);
    if (kernet_update_compare == message->head.kind) {
        if (0 == memcmp(at, data + message->extent, size)) memcpy(at, data, size);
    } else if (MPI_REPLACE == message->operation) {
        memcpy(at, data, size);
    } else if (MPI_NO_OP != message->operation) {
        PMPI_Reduce_local(aligned(data, size), at, (int) run.count, message->type, message->operation);
    }
}

static void change_all(const open_t *window, const message_t *message, char *was)
{
    const uintptr_t from = place_of(window, message->head.displacement);
    const char *data = message->data;
    for (uint32_t i = 0; i < message->head.runs; i++) {
        const kernet_run_t run = run_of(message, i);
        void *at = (void *) (from + (uintptr_t) run.offset);
        if (was) {
            memcpy(was, at, size_of_run(message, run));
            was += run.count * message->extent;
        }
        change(message, at, data, run);
        data += run.count * message->extent;
    }
}

static void note_refused(open_t *window, uint32_t peer, int error)
{
    refused_t *refused = malloc(sizeof *refused);
    if (!refused) return;
    *refused = (refused_t){.next = window->refused, .peer = peer, .error = error};
    window->refused = refused;
}

static int take_refused(open_t *window, uint32_t peer)
{
    int error = MPI_SUCCESS;
    for (refused_t **at = &window->refused; *at;) {
        refused_t *refused = *at;
        if (refused->peer != peer) {
            at = &refused->next;
            continue;
        }
        error = refused->error;
        *at = refused->next;
        free(refused);
    }
    return error;
}

static int apply_in(open_t *window, uint32_t peer, const message_t *message, char *answer, size_t *answered)
{
    const bool asks = kernet_update_accumulate != message->head.kind;
    if (kernet_update_flush == message->head.kind) return take_refused(window, peer);
    if (!covers_all(window, message)) {
        if (!asks) note_refused(window, peer, MPI_ERR_RMA_RANGE);
        return MPI_ERR_RMA_RANGE;
    }
    change_all(window, message, asks ? answer : NULL);
    *answered = asks ? message->total : 0;
    return MPI_SUCCESS;
}

int kernet_update_apply(uint32_t peer, const void *bytes, size_t size, void *answer, size_t room,
                        size_t *answered)
{
    message_t message;
    *answered = 0;
    if (!read_message(&message, bytes, size) || message.total > room) return MPI_ERR_OTHER;
    pthread_mutex_lock(&mutex);
    open_t *window = find(message.head.window);
    const int error = window ? apply_in(window, peer, &message, answer, answered) : MPI_ERR_WIN;
    pthread_mutex_unlock(&mutex);
    return error;
}
