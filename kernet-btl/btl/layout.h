/* SPDX-License-Identifier: BSD-3-Clause */
/* MPI's datatypes as elements of one predefined type, which is what operations are made for.
 *
 * A datatype lists values; between them, and between elements of some predefined types
 * (MPI_SHORT_INT, MPI_DOUBLE_INT, ...), there are gaps. Packed, they lie one behind the other without
 * any. In an update they lie as in an array of C: with the gaps of their own type, and no others. */
#ifndef KERNET_BTL_LAYOUT_H
#define KERNET_BTL_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "ompi_config.h"
#include "ompi/datatype/ompi_datatype.h"

BEGIN_C_DECLS

typedef struct {
    ompi_datatype_t *element;
    size_t size;   /* of an element's values, bytes */
    size_t extent; /* from one to the next in an array, bytes */
} kernet_layout_t;

/* moved: values are only copied, whatever they are. MPI_ERR_TYPE: operations need one predefined type. */
int kernet_layout_of(kernet_layout_t *layout, ompi_datatype_t *type, bool moved);

/* Says where the elements of `count` times `type` are, in order, bytes from the first one's address. Ends
 * with the first result that is not OMPI_SUCCESS, and returns it. */
typedef int (*kernet_layout_fn_t)(void *context, ptrdiff_t offset, size_t elements);
int kernet_layout_walk(const kernet_layout_t *layout, int count, ompi_datatype_t *type,
                       kernet_layout_fn_t say, void *context);

/* Elements in an array: in *data, which is in the buffer itself if they lie so there, else in *made, for
 * free(3). */
int kernet_layout_pack(const kernet_layout_t *layout, const void *buffer, int count, ompi_datatype_t *type,
                       const char **data, void **made);

/* The other way: elements are put into the array at `place` by the caller, then end up in the buffer. */
typedef struct {
    char *place;
    void *made; /* null: the array is in the buffer; else it, and behind it room for its values packed */
    kernet_layout_t layout;
    void *buffer;
    int count;
    ompi_datatype_t *type; /* held */
} kernet_result_t;
int kernet_result_begin(kernet_result_t *result, const kernet_layout_t *layout, void *buffer, int count,
                        ompi_datatype_t *type);
int kernet_result_finish(kernet_result_t *result);

END_C_DECLS
#endif
