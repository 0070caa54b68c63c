/* SPDX-License-Identifier: BSD-3-Clause */
/* Between the C shell that registers the component and the C++ module. */
#ifndef KERNET_BTL_BRIDGE_H
#define KERNET_BTL_BRIDGE_H

#include "opal_config.h"
#include "opal/mca/btl/btl.h"

BEGIN_C_DECLS

/* MCA parameters of our own; the usual ones (eager limit, ...) are in the module itself. */
typedef struct kernet_btl_params_t {
    bool standalone;        /* run without ghost: locations from the modex only (development) */
    bool use_shm;
    bool use_tcp;
    char *links;            /* to prefer between nodes, in order */
    char *if_include;
    char *tcp_congestion;
    unsigned dead_after;    /* seconds of silence */
    size_t ring_bytes;      /* payload ring per direction and pair */
    unsigned ring_frames;
    size_t piece_min;       /* how a large message is cut for a ring, bytes */
    size_t piece_max;
    size_t backlog;         /* bytes kept here per peer before senders have to wait */
    size_t near_eager_limit;
} kernet_btl_params_t;

extern kernet_btl_params_t kernet_btl_params;
extern mca_btl_base_module_t kernet_btl_module;
OPAL_MODULE_DECLSPEC extern mca_btl_base_component_3_0_0_t mca_btl_kernet_component;

/* What osc rdma looks for in a module; without one it is not used. */
enum {
    kernet_flags_of_windows =
        MCA_BTL_FLAGS_PUT | MCA_BTL_FLAGS_ATOMIC_OPS | MCA_BTL_FLAGS_ATOMIC_FOPS
};

/* Defaults of the module's own fields, before the parameters are registered. */
void kernet_btl_defaults(void);
/* The modules of this process, an array for free(3); NULL if the component is not wanted. */
mca_btl_base_module_t **kernet_btl_init(int *count, bool progress_threads, bool mpi_threads);
int kernet_btl_progress(void);

/* This process does not leave the node it is on, whose number is returned, until may_leave. */
int kernet_btl_stay(void);
void kernet_btl_may_leave(void);

END_C_DECLS
#endif
