/* SPDX-License-Identifier: BSD-3-Clause */
/* The BTL component `kernet`: registers itself and its parameters; the module does the work. */
#include "opal_config.h"

#include <stddef.h>

#include "kernet-btl/btl/bridge.h"
#include "kernet-btl/btl/connect.h"
#include "opal/constants.h"
#include "opal/mca/base/mca_base_var.h"
#include "opal/mca/btl/base/base.h"

kernet_btl_params_t kernet_btl_params = {
    .standalone = false,
    .use_shm = true,
    .use_tcp = true,
    .links = NULL,
    .if_include = NULL,
    .tcp_congestion = "reno,cubic",
    .dead_after = 30,
    .ring_bytes = 512 * 1024,
    .ring_frames = 2048,
    .piece_min = 2048,
    .piece_max = 65536,
    .backlog = 4 * 1024 * 1024,
    .near_eager_limit = 16640, /* 16 KB, and ob1's header */
};

static void param(const char *name, const char *help, mca_base_var_type_t type, void *storage)
{
    (void) mca_base_component_var_register(&mca_btl_kernet_component.btl_version, name, help, type,
                                           NULL, 0, 0, OPAL_INFO_LVL_5, MCA_BASE_VAR_SCOPE_READONLY,
                                           storage);
}

static int kernet_register(void)
{
    kernet_btl_params_t *p = &kernet_btl_params;
    param("standalone", "Run without ghost, for development: ranks cannot move",
          MCA_BASE_VAR_TYPE_BOOL, &p->standalone);
    param("use_shm", "Use shared memory with peers on the same node", MCA_BASE_VAR_TYPE_BOOL,
          &p->use_shm);
    param("use_tcp", "Use TCP", MCA_BASE_VAR_TYPE_BOOL, &p->use_tcp);
    param("links", "Links to prefer between nodes, in order: tcp, pair (small messages by UDP, "
          "large ones by TCP), framepair (the same with raw Ethernet frames), udp, netdevice, ofi; "
          "auto: those named beside it, else framepair and pair, where they are measured to be better "
          "than tcp (default: GHOST_LINKS, or auto)",
          MCA_BASE_VAR_TYPE_STRING, &p->links);
    param("if_include", "Interfaces or CIDR nets for TCP, comma-separated (default: all but "
          "loopback)", MCA_BASE_VAR_TYPE_STRING, &p->if_include);
    param("tcp_congestion", "Congestion control algorithms to try, in order; empty: the system's",
          MCA_BASE_VAR_TYPE_STRING, &p->tcp_congestion);
    param("dead_after", "Seconds of silence after which another node is taken for dead and its ranks "
          "are connected to again", MCA_BASE_VAR_TYPE_UNSIGNED_INT, &p->dead_after);
    param("ring_bytes", "Shared memory for long messages, per pair and direction, bytes",
          MCA_BASE_VAR_TYPE_SIZE_T, &p->ring_bytes);
    param("ring_frames", "Lines of 64 bytes for messages in shared memory, per pair and direction; "
          "a power of two", MCA_BASE_VAR_TYPE_UNSIGNED_INT, &p->ring_frames);
    param("piece_min", "Smallest piece a large message is cut into in shared memory, bytes",
          MCA_BASE_VAR_TYPE_SIZE_T, &p->piece_min);
    param("piece_max", "Largest piece a large message is cut into in shared memory, bytes",
          MCA_BASE_VAR_TYPE_SIZE_T, &p->piece_max);
    param("backlog", "Bytes that may wait in the process per peer before a sender waits; 64 KB at "
          "most for a peer in shared memory",
          MCA_BASE_VAR_TYPE_SIZE_T, &p->backlog);
    param("near_eager_limit", "The eager limit while all peers are in shared memory and answer, bytes",
          MCA_BASE_VAR_TYPE_SIZE_T, &p->near_eager_limit);
    kernet_btl_defaults();
    return mca_btl_base_param_register(&mca_btl_kernet_component.btl_version, &kernet_btl_module);
}

static int kernet_open(void)
{
    return OPAL_SUCCESS;
}

static int kernet_close(void)
{
    kernet_connect_as_stock();
    return OPAL_SUCCESS;
}

mca_btl_base_component_3_0_0_t mca_btl_kernet_component = {
    .btl_version = {
        MCA_BTL_DEFAULT_VERSION("kernet"),
        .mca_open_component = kernet_open,
        .mca_close_component = kernet_close,
        .mca_register_component_params = kernet_register,
    },
    .btl_data = { .param_field = MCA_BASE_METADATA_PARAM_CHECKPOINT },
    .btl_init = kernet_btl_init,
    .btl_progress = kernet_btl_progress,
};
