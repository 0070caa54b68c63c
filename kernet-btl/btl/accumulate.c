/* SPDX-License-Identifier: BSD-3-Clause */
/* See accumulate.h. What osc rdma synchronises (locks, fences, posts) stays its own; before it ends an
 * epoch or flushes, what was sent by us is waited for. */
#include "kernet-btl/btl/accumulate.h"

#include <mpi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernet-btl/btl/layout.h"
#include "kernet-btl/btl/update.h"
#include "ompi/group/group.h"
#include "ompi/mca/bml/base/base.h"
#include "ompi/proc/proc.h"
#include "ompi/request/request.h"
#include "ompi/win/win.h"
#include "opal/class/opal_hash_table.h"
#include "opal/runtime/opal_progress.h"

/* What this process has under way to one rank of a window. */
typedef struct {
    struct mca_btl_base_endpoint_t *endpoint;
    atomic_bool known;   /* endpoint is; null is this process itself */
    atomic_bool dirty;   /* accumulates were sent that no answer is known for */
    atomic_uint pending; /* fetches without their answer */
    atomic_int error;    /* of one of them, not told yet */
} target_t;

typedef struct {
    ompi_win_t *window;
    uint64_t number;
    ompi_osc_base_module_t stock;
    int ranks;
    target_t targets[];
} ours_t;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static opal_hash_table_t table; /* window's address → ours_t */
static bool made;

static ours_t *find(const ompi_win_t *window)
{
    void *found = NULL;
    pthread_mutex_lock(&mutex);
    if (OPAL_SUCCESS != opal_hash_table_get_value_uint64(&table, (uintptr_t) window, &found)) found = NULL;
    pthread_mutex_unlock(&mutex);
    return found;
}

static bool remember(ours_t *ours)
{
    pthread_mutex_lock(&mutex);
    if (!made) {
        OBJ_CONSTRUCT(&table, opal_hash_table_t);
        made = OPAL_SUCCESS == opal_hash_table_init(&table, 64);
    }
    const bool put = made && OPAL_SUCCESS == opal_hash_table_set_value_uint64(
                                                 &table, (uintptr_t) ours->window, ours);
    pthread_mutex_unlock(&mutex);
    return put;
}

static void forget(const ompi_win_t *window)
{
    pthread_mutex_lock(&mutex);
    opal_hash_table_remove_value_uint64(&table, (uintptr_t) window);
    pthread_mutex_unlock(&mutex);
}

/* ---- targets ---- */

static struct mca_btl_base_endpoint_t *endpoint_in(const mca_bml_base_btl_array_t *transports)
{
    for (size_t i = 0; i < transports->arr_size; i++)
        if (&kernet_btl_module == transports->bml_btls[i].btl) return transports->bml_btls[i].btl_endpoint;
    return NULL;
}

static int find_endpoint(const ours_t *ours, int rank, target_t *target)
{
    ompi_proc_t *process = ompi_group_peer_lookup(ours->window->w_group, rank);
    if (process != ompi_proc_local()) {
        mca_bml_base_endpoint_t *found = mca_bml_base_get_endpoint(process);
        target->endpoint = found ? endpoint_in(&found->btl_send) : NULL;
        if (!target->endpoint) return OMPI_ERR_UNREACH;
    }
    target->known = true;
    return OMPI_SUCCESS;
}

static int target_of(ours_t *ours, int rank, target_t **target)
{
    *target = &ours->targets[rank];
    return (*target)->known ? OMPI_SUCCESS : find_endpoint(ours, rank, *target);
}

static void note_error(target_t *target, int error)
{
    int none = MPI_SUCCESS;
    if (MPI_SUCCESS != error) atomic_compare_exchange_strong(&target->error, &none, error);
}

/* ---- fetches: what was there comes in one answer for each message ---- */

typedef struct {
    target_t *target;
    ompi_request_t *request; /* may be null */
    kernet_result_t result;
    atomic_uint left; /* answers, and one while there may be more */
} fetch_t;

static int cannot_cancel(ompi_request_t *request, int flag)
{
    (void) request, (void) flag;
    return MPI_ERR_REQUEST;
}

static int free_request(ompi_request_t **request)
{
    if (REQUEST_COMPLETED != (*request)->req_complete) return MPI_ERR_REQUEST;
    OMPI_REQUEST_FINI(*request);
    OBJ_RELEASE(*request);
    *request = MPI_REQUEST_NULL;
    return OMPI_SUCCESS;
}

static ompi_request_t *make_request(ompi_win_t *window)
{
    ompi_request_t *request = OBJ_NEW(ompi_request_t);
    if (!request) return NULL;
    OMPI_REQUEST_INIT(request, false);
    request->req_type = OMPI_REQUEST_WIN;
    request->req_mpi_object.win = window;
    request->req_status = ompi_status_empty;
    request->req_state = OMPI_REQUEST_ACTIVE;
    request->req_free = free_request;
    request->req_cancel = cannot_cancel;
    return request;
}

static void put_down(fetch_t *fetch)
{
    if (atomic_fetch_sub(&fetch->left, 1) > 1) return;
    note_error(fetch->target, kernet_result_finish(&fetch->result));
    if (fetch->request) {
        fetch->request->req_status.MPI_ERROR = atomic_load(&fetch->target->error);
        ompi_request_complete(fetch->request, true);
    }
    atomic_fetch_sub(&fetch->target->pending, 1);
    free(fetch);
}

static void fetched(mca_btl_base_module_t *module, struct mca_btl_base_endpoint_t *endpoint, void *address,
                    mca_btl_base_registration_handle_t *handle, void *context, void *data, int status)
{
    fetch_t *fetch = context;
    (void) module, (void) endpoint, (void) address, (void) handle, (void) data;
    note_error(fetch->target, status);
    put_down(fetch);
}

/* ---- sending ---- */

typedef struct {
    target_t *target;
    kernet_update_t head;
    fetch_t *fetch; /* null: nobody waits for what was there */
    const char *data;
    char *answer;
    size_t extent; /* of elements, bytes */
    kernet_run_t *runs; /* room for kernet_update_runs */
    size_t elements;    /* in the runs */
} sender_t;

static bool has_data(const sender_t *sender)
{
    return kernet_update_compare == sender->head.kind ||
           (int) sender->head.operation != PMPI_Op_c2f(MPI_NO_OP);
}

static int send_runs(sender_t *sender)
{
    target_t *target = sender->target;
    size_t bytes = sender->elements * sender->extent;
    const size_t expected = sender->fetch ? bytes : 0;
    if (0 == sender->head.runs) return OMPI_SUCCESS;
    if (kernet_update_compare == sender->head.kind) bytes *= 2;
    if (!has_data(sender)) bytes = 0;
    while (kernet_btl_holds_back(target->endpoint) && !kernet_btl_is_gone(target->endpoint)) opal_progress();
    if (sender->fetch) (void) atomic_fetch_add(&sender->fetch->left, 1);
    else atomic_store(&target->dirty, true);
    const int rc = kernet_btl_update(target->endpoint, &sender->head, sender->runs, sender->data, bytes,
                                     sender->answer, expected, sender->fetch ? fetched : NULL, sender->fetch);
    if (OPAL_SUCCESS != rc && sender->fetch) atomic_fetch_sub(&sender->fetch->left, 1);
    sender->data += bytes;
    sender->answer += expected;
    sender->head.runs = 0;
    sender->elements = 0;
    return rc;
}

/* As many elements from `offset` on; sends whenever a message is full. */
static int add_elements(void *context, ptrdiff_t offset, size_t count)
{
    sender_t *sender = context;
    const size_t most = kernet_update_bytes / sender->extent;
    while (count > 0) {
        if (sender->elements == most || kernet_update_runs == sender->head.runs) {
            const int rc = send_runs(sender);
            if (OMPI_SUCCESS != rc) return rc;
        }
        const size_t now = count < most - sender->elements ? count : most - sender->elements;
        sender->runs[sender->head.runs++] = (kernet_run_t){.offset = offset, .count = now};
        sender->elements += now;
        count -= now;
        offset += (ptrdiff_t) (now * sender->extent);
    }
    return OMPI_SUCCESS;
}

/* ---- an operation, as MPI gives it ---- */

typedef struct {
    const void *buffer;
    int count;
    ompi_datatype_t *type;
} given_t;

static bool is_nothing(given_t result, given_t target)
{
    return 0 == target.count || 0 == target.type->super.size || (result.buffer && 0 == result.count);
}

static bool is_moved(MPI_Op operation)
{
    return MPI_REPLACE == operation || MPI_NO_OP == operation;
}

/* An epoch is looked for, and begun where osc rdma begins one late: with nothing to do. */
static int check_epoch(const ours_t *ours, int rank, ptrdiff_t displacement, ompi_datatype_t *type)
{
    return ours->stock.osc_accumulate(NULL, 0, type, rank, displacement, 0, type, MPI_REPLACE, ours->window);
}

static int send_all(sender_t *sender, const kernet_layout_t *layout, given_t target)
{
    int rc = kernet_layout_walk(layout, target.count, target.type, add_elements, sender);
    if (OMPI_SUCCESS == rc) rc = send_runs(sender);
    return rc;
}

static int begin_fetch(sender_t *sender, const kernet_layout_t *layout, given_t result,
                       ompi_request_t *request)
{
    fetch_t *fetch = calloc(1, sizeof *fetch);
    if (!fetch) return OMPI_ERR_OUT_OF_RESOURCE;
    const int rc = kernet_result_begin(&fetch->result, layout, (void *) result.buffer, result.count,
                                       result.type);
    if (OMPI_SUCCESS != rc) {
        free(fetch);
        return rc;
    }
    fetch->target = sender->target;
    fetch->request = request;
    atomic_store(&fetch->left, 1);
    atomic_fetch_add(&sender->target->pending, 1);
    sender->fetch = fetch;
    sender->answer = fetch->result.place;
    sender->head.kind = kernet_update_fetch;
    return OMPI_SUCCESS;
}

/* result.buffer null: what was there is not asked for. */
static int update(ompi_win_t *window, given_t origin, given_t result, int rank, ptrdiff_t displacement,
                  given_t target, MPI_Op operation, ompi_request_t *request)
{
    ours_t *ours = find(window);
    kernet_run_t runs[kernet_update_runs];
    sender_t sender = {.runs = runs,
                       .head = {.window = ours->number, .displacement = displacement,
                                .operation = (uint32_t) PMPI_Op_c2f(operation),
                                .kind = kernet_update_accumulate}};
    kernet_layout_t layout;
    void *packed = NULL;
    int rc = check_epoch(ours, rank, displacement, target.type);
    if (OMPI_SUCCESS != rc || is_nothing(result, target)) return rc;
    rc = target_of(ours, rank, &sender.target);
    if (OMPI_SUCCESS == rc) rc = kernet_layout_of(&layout, target.type, is_moved(operation));
    if (OMPI_SUCCESS == rc && MPI_NO_OP != operation)
        rc = kernet_layout_pack(&layout, origin.buffer, origin.count, origin.type, &sender.data, &packed);
    if (OMPI_SUCCESS == rc && result.buffer) rc = begin_fetch(&sender, &layout, result, request);
    if (OMPI_SUCCESS != rc) {
        free(packed);
        return rc;
    }
    sender.extent = layout.extent;
    sender.head.type = (uint32_t) PMPI_Type_c2f(layout.element);
    rc = send_all(&sender, &layout, target);
    free(packed);
    if (sender.fetch) put_down(sender.fetch);
    return rc;
}

static int with_request(ompi_win_t *window, given_t origin, given_t result, int rank, ptrdiff_t displacement,
                        given_t target, MPI_Op operation, ompi_request_t **request)
{
    ompi_request_t *own = make_request(window);
    if (!own) return OMPI_ERR_OUT_OF_RESOURCE;
    const bool answered = result.buffer && !is_nothing(result, target);
    const int rc = update(window, origin, result, rank, displacement, target, operation,
                          answered ? own : NULL);
    if (OMPI_SUCCESS == rc && !answered) ompi_request_complete(own, true); /* the origin has been copied */
    if (OMPI_SUCCESS == rc) *request = own;
    else if (!answered) OBJ_RELEASE(own); /* else an answer may still come */
    return rc;
}

static const given_t nothing;

static int accumulate(const void *origin, int origin_count, ompi_datatype_t *origin_type, int rank,
                      ptrdiff_t displacement, int count, ompi_datatype_t *type, MPI_Op operation,
                      ompi_win_t *window)
{
    return update(window, (given_t){origin, origin_count, origin_type}, nothing, rank, displacement,
                  (given_t){NULL, count, type}, operation, NULL);
}

static int get_accumulate(const void *origin, int origin_count, ompi_datatype_t *origin_type, void *result,
                          int result_count, ompi_datatype_t *result_type, int rank, ptrdiff_t displacement,
                          int count, ompi_datatype_t *type, MPI_Op operation, ompi_win_t *window)
{
    return update(window, (given_t){origin, origin_count, origin_type},
                  (given_t){result, result_count, result_type}, rank, displacement,
                  (given_t){NULL, count, type}, operation, NULL);
}

static int fetch_and_op(const void *origin, void *result, ompi_datatype_t *type, int rank, ptrdiff_t displacement,
                        MPI_Op operation, ompi_win_t *window)
{
    return update(window, (given_t){origin, 1, type}, (given_t){result, 1, type}, rank, displacement,
                  (given_t){NULL, 1, type}, operation, NULL);
}

static int raccumulate(const void *origin, int origin_count, ompi_datatype_t *origin_type, int rank,
                       ptrdiff_t displacement, int count, ompi_datatype_t *type, MPI_Op operation,
                       ompi_win_t *window, ompi_request_t **request)
{
    return with_request(window, (given_t){origin, origin_count, origin_type}, nothing, rank, displacement,
                        (given_t){NULL, count, type}, operation, request);
}

static int rget_accumulate(const void *origin, int origin_count, ompi_datatype_t *origin_type, void *result,
                           int result_count, ompi_datatype_t *result_type, int rank, ptrdiff_t displacement,
                           int count, ompi_datatype_t *type, MPI_Op operation, ompi_win_t *window,
                           ompi_request_t **request)
{
    return with_request(window, (given_t){origin, origin_count, origin_type},
                        (given_t){result, result_count, result_type}, rank, displacement,
                        (given_t){NULL, count, type}, operation, request);
}

static int compare_and_swap(const void *origin, const void *compare, void *result, ompi_datatype_t *type,
                            int rank, ptrdiff_t displacement, ompi_win_t *window)
{
    ours_t *ours = find(window);
    kernet_run_t run;
    sender_t sender = {.runs = &run,
                       .head = {.window = ours->number, .displacement = displacement,
                                .type = (uint32_t) PMPI_Type_c2f(type),
                                .operation = (uint32_t) PMPI_Op_c2f(MPI_REPLACE)}};
    const size_t size = type->super.size;
    char both[64];
    kernet_layout_t layout;
    if (2 * size > sizeof both) return OMPI_ERR_NOT_SUPPORTED;
    memcpy(both, origin, size);
    memcpy(both + size, compare, size);
    int rc = check_epoch(ours, rank, displacement, type);
    if (OMPI_SUCCESS == rc) rc = target_of(ours, rank, &sender.target);
    if (OMPI_SUCCESS == rc) rc = kernet_layout_of(&layout, type, false);
    if (OMPI_SUCCESS == rc) rc = begin_fetch(&sender, &layout, (given_t){result, 1, type}, NULL);
    if (OMPI_SUCCESS != rc) return rc;
    sender.head.kind = kernet_update_compare;
    sender.data = both;
    sender.extent = layout.extent;
    rc = send_all(&sender, &layout, (given_t){NULL, 1, type});
    put_down(sender.fetch);
    return rc;
}

/* ---- synchronisation ---- */

static void flushed(mca_btl_base_module_t *module, struct mca_btl_base_endpoint_t *endpoint, void *address,
                    mca_btl_base_registration_handle_t *handle, void *context, void *data, int status)
{
    target_t *target = context;
    (void) module, (void) endpoint, (void) address, (void) handle, (void) data;
    note_error(target, status);
    atomic_fetch_sub(&target->pending, 1);
}

/* Asks for the answer to what was sent without one. */
static int ask(const ours_t *ours, target_t *target)
{
    const kernet_update_t head = {.window = ours->number, .kind = kernet_update_flush};
    if (!atomic_exchange(&target->dirty, false)) return OMPI_SUCCESS;
    atomic_fetch_add(&target->pending, 1);
    const int rc = kernet_btl_update(target->endpoint, &head, NULL, NULL, 0, NULL, 0, flushed, target);
    if (OPAL_SUCCESS != rc) atomic_fetch_sub(&target->pending, 1);
    return rc;
}

static int await(target_t *target)
{
    while (atomic_load(&target->pending) > 0) {
        if (kernet_btl_is_gone(target->endpoint)) return OMPI_ERR_UNREACH;
        opal_progress();
    }
    return atomic_exchange(&target->error, MPI_SUCCESS);
}

static int settle(ours_t *ours, int rank)
{
    target_t *target = &ours->targets[rank];
    if (!target->known) return OMPI_SUCCESS;
    const int rc = ask(ours, target);
    return OMPI_SUCCESS == rc ? await(target) : rc;
}

static int settle_all(ours_t *ours)
{
    int rc = OMPI_SUCCESS;
    for (int i = 0; i < ours->ranks; i++)
        if (ours->targets[i].known && OMPI_SUCCESS != ask(ours, &ours->targets[i])) rc = OMPI_ERR_UNREACH;
    for (int i = 0; i < ours->ranks; i++) {
        const int one = ours->targets[i].known ? await(&ours->targets[i]) : OMPI_SUCCESS;
        if (OMPI_SUCCESS == rc) rc = one;
    }
    return rc;
}

/* Both are done whatever the first says: others wait for this rank in the second. */
static int first_error(int one, int other)
{
    return OMPI_SUCCESS != one ? one : other;
}

static int flush(int rank, ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle(ours, rank);
    return first_error(rc, ours->stock.osc_flush(rank, window));
}

static int flush_local(int rank, ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle(ours, rank);
    return first_error(rc, ours->stock.osc_flush_local(rank, window));
}

static int unlock(int rank, ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle(ours, rank);
    return first_error(rc, ours->stock.osc_unlock(rank, window));
}

static int flush_all(ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle_all(ours);
    return first_error(rc, ours->stock.osc_flush_all(window));
}

static int flush_local_all(ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle_all(ours);
    return first_error(rc, ours->stock.osc_flush_local_all(window));
}

static int unlock_all(ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle_all(ours);
    return first_error(rc, ours->stock.osc_unlock_all(window));
}

static int complete(ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle_all(ours);
    return first_error(rc, ours->stock.osc_complete(window));
}

static int fence(int assert, ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle_all(ours);
    return first_error(rc, ours->stock.osc_fence(assert, window));
}

/* ---- memory ---- */

static int attach(ompi_win_t *window, void *base, size_t size)
{
    ours_t *ours = find(window);
    const int rc = ours->stock.osc_win_attach(window, base, size);
    if (OMPI_SUCCESS != rc || kernet_memory_attach(ours->number, base, size)) return rc;
    ours->stock.osc_win_detach(window, base);
    return OMPI_ERR_OUT_OF_RESOURCE;
}

static int detach(ompi_win_t *window, const void *base)
{
    ours_t *ours = find(window);
    const int rc = ours->stock.osc_win_detach(window, base);
    if (OMPI_SUCCESS == rc) kernet_memory_detach(ours->number, base);
    return rc;
}

/* osc rdma waits for all ranks in there, each of which has waited for its answers. */
static int free_window(ompi_win_t *window)
{
    ours_t *ours = find(window);
    const int rc = settle_all(ours);
    const int stock = ours->stock.osc_free(window);
    forget(window);
    kernet_memory_close(ours->number);
    free(ours);
    return first_error(rc, stock);
}

static void take_over(ompi_osc_base_module_t *module)
{
    module->osc_accumulate = accumulate;
    module->osc_get_accumulate = get_accumulate;
    module->osc_fetch_and_op = fetch_and_op;
    module->osc_compare_and_swap = compare_and_swap;
    module->osc_raccumulate = raccumulate;
    module->osc_rget_accumulate = rget_accumulate;
    module->osc_flush = flush;
    module->osc_flush_all = flush_all;
    module->osc_flush_local = flush_local;
    module->osc_flush_local_all = flush_local_all;
    module->osc_unlock = unlock;
    module->osc_unlock_all = unlock_all;
    module->osc_complete = complete;
    module->osc_fence = fence;
    module->osc_win_attach = attach;
    module->osc_win_detach = detach;
    module->osc_free = free_window;
}

int kernet_accumulate_here(ompi_win_t *window, uint64_t number, char *base, size_t size, size_t unit,
                           struct ompi_communicator_t *comm)
{
    const int ranks = ompi_group_size(window->w_group);
    const kernet_memory_t memory = {.number = number, .base = base, .size = size, .unit = unit};
    ours_t *ours = calloc(1, sizeof *ours + (size_t) ranks * sizeof ours->targets[0]);
    if (!ours) return OMPI_ERR_OUT_OF_RESOURCE;
    ours->window = window;
    ours->number = number;
    ours->ranks = ranks;
    ours->stock = *window->w_osc_module;
    if (!remember(ours)) {
        free(ours);
        return OMPI_ERR_OUT_OF_RESOURCE;
    }
    if (!kernet_memory_open(&memory)) return OMPI_ERR_OUT_OF_RESOURCE;
    take_over(window->w_osc_module);
    return comm->c_coll->coll_barrier(comm, comm->c_coll->coll_barrier_module);
}
