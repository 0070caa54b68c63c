/* SPDX-License-Identifier: BSD-3-Clause */
/* See layout.h. */
#include "kernet-btl/btl/layout.h"

#include <mpi.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "ompi/datatype/ompi_datatype_internal.h"
#include "opal/datatype/opal_convertor.h"

enum { runs_at_once = 32 };

static bool has_gaps(const kernet_layout_t *layout)
{
    return layout->size != layout->extent;
}

int kernet_layout_of(kernet_layout_t *layout, ompi_datatype_t *type, bool moved)
{
    ptrdiff_t lower, extent;
    layout->element = moved ? MPI_BYTE : ompi_datatype_get_single_predefined_type_from_args(type);
    if (!layout->element) return MPI_ERR_TYPE;
    ompi_datatype_get_extent(layout->element, &lower, &extent);
    layout->size = layout->element->super.size;
    layout->extent = (size_t) extent;
    return extent > 0 && layout->size > 0 ? OMPI_SUCCESS : MPI_ERR_TYPE;
}

static size_t packed_bytes(int count, const ompi_datatype_t *type)
{
    return (size_t) count * type->super.size;
}

/* ---- where elements are ---- */

typedef struct {
    const kernet_layout_t *layout;
    kernet_layout_fn_t say;
    void *context;
    ptrdiff_t begins; /* of the element being put together */
    size_t has;       /* of it, bytes */
} walk_t;

/* Values without gaps between them, `bytes` in all. */
static int walk_run(walk_t *walk, ptrdiff_t offset, size_t bytes)
{
    const size_t size = walk->layout->size;
    if (!has_gaps(walk->layout) && 0 == walk->has && 0 == bytes % size)
        return walk->say(walk->context, offset, bytes / size);
    while (bytes > 0) {
        const size_t take = bytes < size - walk->has ? bytes : size - walk->has;
        if (0 == walk->has) walk->begins = offset;
        walk->has += take;
        offset += (ptrdiff_t) take;
        bytes -= take;
        if (walk->has < size) break;
        walk->has = 0;
        const int rc = walk->say(walk->context, walk->begins, 1);
        if (OMPI_SUCCESS != rc) return rc;
    }
    return OMPI_SUCCESS;
}

static int walk_runs(walk_t *walk, opal_convertor_t *convertor, uintptr_t from)
{
    struct iovec runs[runs_at_once];
    bool done = false;
    while (!done) {
        uint32_t count = runs_at_once;
        size_t bytes = 0;
        done = 0 != opal_convertor_raw(convertor, runs, &count, &bytes);
        for (uint32_t i = 0; i < count; i++) {
            const int rc = walk_run(walk, (ptrdiff_t) ((uintptr_t) runs[i].iov_base - from), runs[i].iov_len);
            if (OMPI_SUCCESS != rc) return rc;
        }
        if (0 == count) break;
    }
    return OMPI_SUCCESS;
}

int kernet_layout_walk(const kernet_layout_t *layout, int count, ompi_datatype_t *type,
                       kernet_layout_fn_t say, void *context)
{
    /* any address does: nothing is looked at */
    static char anywhere[1];
    walk_t walk = {.layout = layout, .say = say, .context = context};
    opal_convertor_t convertor;
    if (type == layout->element) return say(context, 0, (size_t) count);
    if (!has_gaps(layout) && ompi_datatype_is_contiguous_memory_layout(type, count))
        return say(context, type->super.true_lb, packed_bytes(count, type) / layout->size);
    OBJ_CONSTRUCT(&convertor, opal_convertor_t);
    int rc = opal_convertor_copy_and_prepare_for_send(ompi_mpi_local_convertor, &type->super, count,
                                                      anywhere, 0, &convertor);
    if (OMPI_SUCCESS == rc) rc = walk_runs(&walk, &convertor, (uintptr_t) anywhere);
    opal_convertor_cleanup(&convertor);
    OBJ_DESTRUCT(&convertor);
    return rc;
}

/* ---- packed values and arrays ---- */

static int pack(const void *buffer, int count, ompi_datatype_t *type, void *packed, size_t bytes)
{
    struct iovec all = {.iov_base = packed, .iov_len = bytes};
    uint32_t pieces = 1;
    opal_convertor_t convertor;
    OBJ_CONSTRUCT(&convertor, opal_convertor_t);
    int rc = opal_convertor_copy_and_prepare_for_send(ompi_mpi_local_convertor, &type->super, count, buffer,
                                                      0, &convertor);
    if (OMPI_SUCCESS == rc)
        rc = opal_convertor_pack(&convertor, &all, &pieces, &bytes) < 0 ? MPI_ERR_TYPE : rc;
    opal_convertor_cleanup(&convertor);
    OBJ_DESTRUCT(&convertor);
    return rc;
}

static int unpack(const void *packed, size_t bytes, void *buffer, int count, ompi_datatype_t *type)
{
    struct iovec all = {.iov_base = (void *) packed, .iov_len = bytes};
    uint32_t pieces = 1;
    opal_convertor_t convertor;
    OBJ_CONSTRUCT(&convertor, opal_convertor_t);
    int rc = opal_convertor_copy_and_prepare_for_recv(ompi_mpi_local_convertor, &type->super, count, buffer,
                                                      0, &convertor);
    if (OMPI_SUCCESS == rc)
        rc = opal_convertor_unpack(&convertor, &all, &pieces, &bytes) < 0 ? MPI_ERR_TYPE : rc;
    opal_convertor_cleanup(&convertor);
    OBJ_DESTRUCT(&convertor);
    return rc;
}

/* The array is in the buffer itself: at this address; else null. */
static char *array_in(const kernet_layout_t *layout, const void *buffer, int count,
                      const ompi_datatype_t *type)
{
    if (type == layout->element) return (char *) buffer;
    if (has_gaps(layout) || !ompi_datatype_is_contiguous_memory_layout(type, count)) return NULL;
    return (char *) buffer + type->super.true_lb;
}

static int elements_in(const kernet_layout_t *layout, size_t packed)
{
    return (int) (packed / layout->size);
}

static size_t array_bytes(const kernet_layout_t *layout, size_t packed)
{
    return packed / layout->size * layout->extent;
}

int kernet_layout_pack(const kernet_layout_t *layout, const void *buffer, int count, ompi_datatype_t *type,
                       const char **data, void **made)
{
    const size_t bytes = packed_bytes(count, type);
    *data = array_in(layout, buffer, count, type);
    if (*data) return OMPI_SUCCESS;
    char *packed = malloc(bytes + 1);
    if (!packed) return OMPI_ERR_OUT_OF_RESOURCE;
    int rc = pack(buffer, count, type, packed, bytes);
    *made = packed;
    if (OMPI_SUCCESS == rc && has_gaps(layout)) {
        *made = calloc(1, array_bytes(layout, bytes) + 1);
        rc = *made ? unpack(packed, bytes, *made, elements_in(layout, bytes), layout->element)
                   : OMPI_ERR_OUT_OF_RESOURCE;
        free(packed);
    }
    *data = *made;
    return rc;
}

int kernet_result_begin(kernet_result_t *result, const kernet_layout_t *layout, void *buffer, int count,
                        ompi_datatype_t *type)
{
    *result = (kernet_result_t){.layout = *layout, .buffer = buffer, .count = count, .type = type};
    const size_t bytes = packed_bytes(count, type), packed = has_gaps(layout) ? bytes : 0;
    result->place = array_in(layout, buffer, count, type);
    if (!result->place) result->place = result->made = calloc(1, array_bytes(layout, bytes) + packed + 1);
    if (!result->place) return OMPI_ERR_OUT_OF_RESOURCE;
    OBJ_RETAIN(type);
    return OMPI_SUCCESS;
}

static int move_to_buffer(const kernet_result_t *result)
{
    const size_t bytes = packed_bytes(result->count, result->type);
    char *packed = result->made;
    if (has_gaps(&result->layout)) {
        packed += array_bytes(&result->layout, bytes);
        const int rc = pack(result->made, elements_in(&result->layout, bytes), result->layout.element,
                            packed, bytes);
        if (OMPI_SUCCESS != rc) return rc;
    }
    return unpack(packed, bytes, result->buffer, result->count, result->type);
}

int kernet_result_finish(kernet_result_t *result)
{
    const int rc = result->made ? move_to_buffer(result) : OMPI_SUCCESS;
    free(result->made);
    OBJ_RELEASE(result->type);
    return rc;
}
