/* SPDX-License-Identifier: BSD-3-Clause */
/* See windows.h. osc rdma (Open MPI 4.1.4, ompi/mca/osc/rdma/osc_rdma_component.c) puts the state of a
 * window, and the memory of MPI_Win_allocate, of the ranks of a node into a file they share, which keeps
 * them where they are; nothing of its own turns that off. It learns who they are from
 * ompi_comm_split_type(), which it alone shall not find any more: its import of that symbol is
 * ours. What the application calls is as it was. */
#include "kernet-btl/btl/windows.h"

#include <link.h>
#include <mpi.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernet-btl/btl/accumulate.h"
#include "kernet-btl/btl/bridge.h"
#include "ompi/communicator/communicator.h"
#include "ompi/mca/osc/base/base.h"
#include "ompi/mca/osc/osc.h"

static const char library[] = "/mca_osc_rdma.so";
static const char imported[] = "ompi_comm_split_type";

static int alone(ompi_communicator_t *comm, int split_type, int key, struct opal_info_t *info,
                 ompi_communicator_t **made)
{
    (void) split_type;
    (void) info;
    return ompi_comm_split(comm, ompi_comm_rank(comm), key, made, false);
}

typedef struct {
    ElfW(Addr) base;
    const char *names;
    const ElfW(Sym) *symbols;
    struct {
        const ElfW(Rela) *first;
        size_t bytes;
    } calls, others;
} loaded_t;

static const void *address(const loaded_t *loaded, ElfW(Addr) said)
{
    return (const void *) (said < loaded->base ? loaded->base + said : said);
}

static void read_dynamic(const ElfW(Dyn) *entry, loaded_t *loaded)
{
    for (; DT_NULL != entry->d_tag; entry++) {
        const void *at = address(loaded, entry->d_un.d_ptr);
        switch (entry->d_tag) {
        case DT_STRTAB: loaded->names = at; break;
        case DT_SYMTAB: loaded->symbols = at; break;
        case DT_JMPREL: loaded->calls.first = at; break;
        case DT_PLTRELSZ: loaded->calls.bytes = entry->d_un.d_val; break;
        case DT_RELA: loaded->others.first = at; break;
        case DT_RELASZ: loaded->others.bytes = entry->d_un.d_val; break;
        default: break;
        }
    }
}

static bool redirect(const loaded_t *loaded, const ElfW(Rela) *slot)
{
    const size_t page = (size_t) sysconf(_SC_PAGESIZE);
    uintptr_t at = loaded->base + slot->r_offset;
    int (*ours)(ompi_communicator_t *, int, int, struct opal_info_t *, ompi_communicator_t **) = alone;
    /* linked with -z now it has been made read-only */
    if (mprotect((void *) (at & ~(page - 1)), page, PROT_READ | PROT_WRITE) != 0) return false;
    memcpy((void *) at, &ours, sizeof ours);
    return true;
}

static bool redirect_in(const loaded_t *loaded, const ElfW(Rela) *slots, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *slots; i++) {
        const ElfW(Sym) *symbol = &loaded->symbols[ELF64_R_SYM(slots[i].r_info)];
        if (0 == strcmp(loaded->names + symbol->st_name, imported))
            return redirect(loaded, &slots[i]);
    }
    return false;
}

static int look_at(struct dl_phdr_info *object, size_t size, void *done)
{
    loaded_t loaded = {.base = object->dlpi_addr};
    const size_t length = strlen(object->dlpi_name), wanted = sizeof library - 1;
    (void) size;
    if (length < wanted || 0 != strcmp(object->dlpi_name + length - wanted, library)) return 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        if (PT_DYNAMIC == object->dlpi_phdr[i].p_type)
            read_dynamic((const void *) (loaded.base + object->dlpi_phdr[i].p_vaddr), &loaded);
    }
    if (!loaded.names || !loaded.symbols) return 1;
    *(bool *) done = redirect_in(&loaded, loaded.calls.first, loaded.calls.bytes) ||
                     redirect_in(&loaded, loaded.others.first, loaded.others.bytes);
    return 1;
}

bool kernet_windows_without_sharing(void)
{
    bool done = false;
    dl_iterate_phdr(look_at, &done);
    return done;
}

/* Of components of osc, as they were. */
static ompi_osc_base_component_select_fn_t stock_sm_select, stock_rdma_select;

static int all_on(ompi_communicator_t *comm, int node)
{
    int lowest[2] = {node, -node};
    const int rc = comm->c_coll->coll_allreduce(MPI_IN_PLACE, lowest, 2, MPI_INT, MPI_MIN, comm,
                                                comm->c_coll->coll_allreduce_module);
    if (OMPI_SUCCESS != rc) return rc;
    return lowest[0] == -lowest[1] ? OMPI_SUCCESS : OMPI_ERR_RMA_SHARED;
}

static int select_where_ranks_are(struct ompi_win_t *window, void **base, size_t size, int unit,
                                  struct ompi_communicator_t *comm, struct opal_info_t *info,
                                  int flavor, int *model)
{
    int rc = all_on(comm, kernet_btl_stay());
    if (OMPI_SUCCESS == rc) rc = stock_sm_select(window, base, size, unit, comm, info, flavor, model);
    kernet_btl_may_leave();
    return rc;
}

/* One that is higher than any this window's ranks have used. */
static int agree_on_number(ompi_communicator_t *comm, long *number)
{
    static long last;
    *number = last + 1;
    const int rc = comm->c_coll->coll_allreduce(MPI_IN_PLACE, number, 1, MPI_LONG, MPI_MAX, comm,
                                                comm->c_coll->coll_allreduce_module);
    last = *number;
    return rc;
}

static int select_with_updates(struct ompi_win_t *window, void **base, size_t size, int unit,
                               struct ompi_communicator_t *comm, struct opal_info_t *info, int flavor,
                               int *model)
{
    long number = 0;
    int rc = agree_on_number(comm, &number);
    if (OMPI_SUCCESS == rc) rc = stock_rdma_select(window, base, size, unit, comm, info, flavor, model);
    if (OMPI_SUCCESS != rc) return rc;
    const bool dynamic = MPI_WIN_FLAVOR_DYNAMIC == flavor;
    return kernet_accumulate_here(window, (uint64_t) number, dynamic ? NULL : *base, dynamic ? 0 : size,
                                  dynamic ? 1 : (size_t) unit, comm);
}

static void replace(const char *name, ompi_osc_base_component_select_fn_t ours,
                    ompi_osc_base_component_select_fn_t *stock)
{
    mca_base_component_list_item_t *item;
    OPAL_LIST_FOREACH(item, &ompi_osc_base_framework.framework_components,
                      mca_base_component_list_item_t) {
        ompi_osc_base_component_t *component = (ompi_osc_base_component_t *) item->cli_component;
        if (*stock || 0 != strcmp(component->osc_version.mca_component_name, name)) continue;
        *stock = component->osc_select;
        component->osc_select = ours;
    }
}

void kernet_windows_shared_where_ranks_are(void)
{
    replace("sm", select_where_ranks_are, &stock_sm_select);
}

void kernet_windows_with_updates(void)
{
    replace("rdma", select_with_updates, &stock_rdma_select);
}
