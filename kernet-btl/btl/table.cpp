// SPDX-License-Identifier: BSD-3-Clause
// The module's function table: from Open MPI's calling conventions to Module.
#include <algorithm>
#include <climits>
#include <cstring>

#include "kernet-btl/btl/module.hpp"
#include "opal/constants.h"
#include "opal/datatype/opal_convertor.h"
#include "opal/mca/btl/base/base.h"

namespace kernet::btl {

namespace {

Gate& gate() {
    return module->path().gate();
}

mca_btl_base_descriptor_t* alloc(mca_btl_base_module_t*, mca_btl_base_endpoint_t* to, uint8_t,
                                 size_t size, uint32_t flags) {
    Gate::Holder inside(gate());
    Fragment* fragment = module->fragment(to, size, flags);
    return fragment ? &fragment->base : nullptr;
}

int free_descriptor(mca_btl_base_module_t*, mca_btl_base_descriptor_t* descriptor) {
    Gate::Holder inside(gate());
    module->free(reinterpret_cast<Fragment*>(descriptor));
    return OPAL_SUCCESS;
}

// Packs `size` bytes to `to`; the number packed.
size_t pack(opal_convertor_t* convertor, uint8_t* to, size_t size) {
    iovec iov{to, size};
    uint32_t count = 1;
    size_t packed = size;
    return opal_convertor_pack(convertor, &iov, &count, &packed) < 0 ? 0 : packed;
}

mca_btl_base_descriptor_t* prepare_src(mca_btl_base_module_t* self, mca_btl_base_endpoint_t* to,
                                       opal_convertor_t* convertor, uint8_t, size_t reserve,
                                       size_t* size, uint32_t flags) {
    Gate::Holder inside(gate());
    if (reserve + *size > self->btl_max_send_size) *size = self->btl_max_send_size - reserve;
    Fragment* fragment = module->fragment(to, reserve + *size, flags);
    if (!fragment) return nullptr;
    *size = pack(convertor, fragment->frame->bytes() + reserve, *size);
    if (*size == 0) {
        module->free(fragment);
        return nullptr;
    }
    fragment->segment.seg_len = reserve + *size;
    return &fragment->base;
}

int send(mca_btl_base_module_t*, mca_btl_base_endpoint_t* to, mca_btl_base_descriptor_t* descriptor,
         mca_btl_base_tag_t tag) {
    Gate::Holder inside(gate());
    if (module->refuses(to)) return OPAL_ERR_UNREACH;
    return module->send(to, reinterpret_cast<Fragment*>(descriptor), tag);
}

// What may wait for room in a ring before senders wait: its reader is near, and what is kept until
// it has gone on is copied twice and out of the caches by then (docs/notes/012).
constexpr size_t near_backlog = 64 * 1024;

bool holds_back(const Socket& socket) {
    const size_t limit = kernet_btl_params.backlog;
    return socket.backlog() > (socket.local() ? std::min(limit, near_backlog) : limit);
}

// What is shorter is copied in less time than a gather write takes to look at one more piece.
constexpr size_t from_where_it_lies = 4096;

// The fast path: from the user's buffer straight into the link.
int sendi(mca_btl_base_module_t*, mca_btl_base_endpoint_t* to, opal_convertor_t* convertor,
          void* header, size_t header_size, size_t payload_size, uint8_t, uint32_t flags,
          mca_btl_base_tag_t tag, mca_btl_base_descriptor_t** descriptor) {
    Gate::Holder inside(gate());
    Socket& socket = *to->socket;
    const size_t size = header_size + payload_size;
    const bool refused = module->refuses(to);
    if (refused || (socket.backlog() > 0 && holds_back(socket))) [[unlikely]] {
        // (ob1 waits for room without one, whatever the error is; with one it tries send())
        if (descriptor) {
            Fragment* fragment = module->fragment(to, size, flags);
            *descriptor = fragment ? &fragment->base : nullptr;
        }
        return refused ? OPAL_ERR_UNREACH : OPAL_ERR_OUT_OF_RESOURCE;
    }
    void* data = nullptr;
    const bool lies_whole = payload_size > 0 && !opal_convertor_need_buffers(convertor);
    if (lies_whole) [[likely]]
        opal_convertor_get_current_pointer(convertor, &data);
    if (payload_size >= from_where_it_lies) module->count_long(to);
    if (lies_whole && payload_size >= from_where_it_lies) {
        socket.send_pieces(tag, header, header_size, data, payload_size);
        return OPAL_SUCCESS;
    }
    uint8_t* room = socket.reserve(size);
    std::memcpy(room, header, header_size);
    if (lies_whole) [[likely]] {
        std::memcpy(room + header_size, data, payload_size);
    } else if (payload_size > 0) {
        pack(convertor, room + header_size, payload_size);
    }
    socket.commit(size, tag);
    return OPAL_SUCCESS;
}

Pending pending_for(mca_btl_base_endpoint_t* peer, void* address,
                    mca_btl_base_registration_handle_t* handle, size_t size,
                    mca_btl_base_rdma_completion_fn_t callback, void* context, void* data) {
    Pending what;
    what.peer = peer ? peer->socket->peer() : UINT32_MAX;
    what.endpoint = peer;
    what.address = address;
    what.handle = handle;
    what.size = size;
    what.callback = callback;
    what.context = context;
    what.data = data;
    return what;
}

int get(mca_btl_base_module_t*, mca_btl_base_endpoint_t* from, void* local_address,
        uint64_t remote_address, mca_btl_base_registration_handle_t* local_handle,
        mca_btl_base_registration_handle_t* remote_handle, size_t size, int, int,
        mca_btl_base_rdma_completion_fn_t callback, void* context, void* data) {
    Gate::Holder inside(gate());
    if (module->refuses(from)) return OPAL_ERR_UNREACH;
    const Pending what =
        pending_for(from, local_address, local_handle, size, callback, context, data);
    return from ? module->get(what, remote_address, remote_handle)
                : module->get_own(what, remote_address);
}

int put(mca_btl_base_module_t*, mca_btl_base_endpoint_t* to, void* local_address,
        uint64_t remote_address, mca_btl_base_registration_handle_t* local_handle,
        mca_btl_base_registration_handle_t* remote_handle, size_t size, int, int,
        mca_btl_base_rdma_completion_fn_t callback, void* context, void* data) {
    Gate::Holder inside(gate());
    if (module->refuses(to)) return OPAL_ERR_UNREACH;
    return module->put(pending_for(to, local_address, local_handle, size, callback, context, data),
                       remote_address, remote_handle);
}

// 0: one that the peer's processor would need several instructions for.
uint64_t kind_of(mca_btl_base_atomic_op_t operation) {
    switch (operation) {
        case MCA_BTL_ATOMIC_ADD:
            return Atomic::add;
        case MCA_BTL_ATOMIC_AND:
            return Atomic::bit_and;
        case MCA_BTL_ATOMIC_OR:
            return Atomic::bit_or;
        case MCA_BTL_ATOMIC_XOR:
            return Atomic::bit_xor;
        case MCA_BTL_ATOMIC_SWAP:
            return Atomic::swap;
        default:
            return 0;
    }
}

int atomic_fetch(mca_btl_base_module_t*, mca_btl_base_endpoint_t* peer, void* result,
                 uint64_t remote_address, mca_btl_base_registration_handle_t* local_handle,
                 mca_btl_base_registration_handle_t* remote_handle,
                 mca_btl_base_atomic_op_t operation, uint64_t operand, int flags, int,
                 mca_btl_base_rdma_completion_fn_t callback, void* context, void* data) {
    const uint64_t kind = kind_of(operation);
    if (kind == 0 || flags != 0) return OPAL_ERR_NOT_SUPPORTED;
    Gate::Holder inside(gate());
    if (module->refuses(peer)) return OPAL_ERR_UNREACH;
    return module->atomic(
        pending_for(peer, result, local_handle, sizeof operand, callback, context, data),
        {kind, operand, 0}, remote_address, remote_handle);
}

int atomic(mca_btl_base_module_t* self, mca_btl_base_endpoint_t* peer, uint64_t remote_address,
           mca_btl_base_registration_handle_t* remote_handle, mca_btl_base_atomic_op_t operation,
           uint64_t operand, int flags, int order, mca_btl_base_rdma_completion_fn_t callback,
           void* context, void* data) {
    return atomic_fetch(self, peer, nullptr, remote_address, nullptr, remote_handle, operation,
                        operand, flags, order, callback, context, data);
}

int compare_and_swap(mca_btl_base_module_t*, mca_btl_base_endpoint_t* peer, void* result,
                     uint64_t remote_address, mca_btl_base_registration_handle_t* local_handle,
                     mca_btl_base_registration_handle_t* remote_handle, uint64_t compare,
                     uint64_t value, int flags, int, mca_btl_base_rdma_completion_fn_t callback,
                     void* context, void* data) {
    if (flags != 0) return OPAL_ERR_NOT_SUPPORTED;
    Gate::Holder inside(gate());
    if (module->refuses(peer)) return OPAL_ERR_UNREACH;
    return module->atomic(
        pending_for(peer, result, local_handle, sizeof value, callback, context, data),
        {Atomic::compare_swap, value, compare}, remote_address, remote_handle);
}

// Over TCP the way of a get to the sender costs as much as the copies of some 300 KB. So what a get
// would be asked for goes without being asked, up to the first of these sizes. When a peer was not
// ready for such offers lately, up to the second one the get is declined: ob1 then sends the first
// eager_limit bytes along with its request, and the rest when that is answered. Over a ring the get
// is the quickest way at any size.
constexpr size_t tcp_offered = 1024 * 1024;
constexpr size_t tcp_in_pieces = 320 * 1024;

mca_btl_base_registration_handle_t* register_memory(mca_btl_base_module_t*,
                                                    mca_btl_base_endpoint_t* peer, void* base,
                                                    size_t size, uint32_t flags) {
    Gate::Holder inside(gate());
    if (flags == MCA_BTL_REG_FLAG_REMOTE_READ && peer && peer->socket->linked()) {
        module->count_long(peer);
        if (peer->socket->local() || size > tcp_offered) return module->regions.add(base, size);
        if (peer->skip == 0) return module->regions.offer(peer, base, size);
        peer->skip--;
        if (size <= tcp_in_pieces) return nullptr;
    }
    return module->regions.add(base, size);
}

int register_error(mca_btl_base_module_t*, mca_btl_base_module_error_cb_fn_t callback) {
    module->on_error = callback;
    return OPAL_SUCCESS;
}

int deregister_memory(mca_btl_base_module_t*, mca_btl_base_registration_handle_t* handle) {
    Gate::Holder inside(gate());
    module->regions.remove(handle);
    return OPAL_SUCCESS;
}

}  // namespace

}  // namespace kernet::btl

mca_btl_base_module_t kernet_btl_module;

void kernet_btl_defaults(void) {
    using namespace kernet::btl;
    mca_btl_base_module_t& m = kernet_btl_module;
    m.btl_component = &mca_btl_kernet_component;
    // 128 KB (and ob1's header) eager: against 64 KB, messages between the two take 0.53 of the
    // time over TCP; against 16 KB, 32 KB messages take 0.33. While all peers are in shared memory
    // and answer, only 16 KB (near_eager_limit): a get is copied out of the ring while the rest is
    // written, 128 KB take 0.75 of the time. Where messages go one behind the other, many of them
    // are written before the first is read, and eager ones of 24 to 64 KB take 0.78 to 0.9.
    m.btl_eager_limit = 128 * 1024 + 256;
    m.btl_rndv_eager_limit = m.btl_eager_limit;
    m.btl_max_send_size = m.btl_eager_limit;
    m.btl_rdma_pipeline_send_length = m.btl_eager_limit;
    m.btl_rdma_pipeline_frag_size = INT_MAX;
    m.btl_min_rdma_pipeline_size = SIZE_MAX;              // ob1 gets, whatever else there is
    m.btl_exclusivity = MCA_BTL_EXCLUSIVITY_HIGH + 1024;  // above vader and tcp
    m.btl_latency = 1;
    m.btl_bandwidth = 20000;
    m.btl_flags = MCA_BTL_FLAGS_SEND | MCA_BTL_FLAGS_GET | kernet_flags_of_windows;
    // The target applies them by instructions of its processor.
    m.btl_atomic_flags = MCA_BTL_ATOMIC_SUPPORTS_ADD | MCA_BTL_ATOMIC_SUPPORTS_AND |
                         MCA_BTL_ATOMIC_SUPPORTS_OR | MCA_BTL_ATOMIC_SUPPORTS_XOR |
                         MCA_BTL_ATOMIC_SUPPORTS_SWAP | MCA_BTL_ATOMIC_SUPPORTS_CSWAP |
                         MCA_BTL_ATOMIC_SUPPORTS_GLOB;
    m.btl_registration_handle_size = sizeof(mca_btl_base_registration_handle_t);
    m.btl_get_limit = SIZE_MAX;
    m.btl_get_alignment = 0;
    m.btl_get_local_registration_threshold = SIZE_MAX;
    m.btl_put_limit = SIZE_MAX;
    m.btl_put_alignment = 0;
    m.btl_put_local_registration_threshold = SIZE_MAX;
    m.btl_add_procs = add_procs;
    m.btl_del_procs = del_procs;
    m.btl_finalize = finalize;
    m.btl_alloc = alloc;
    m.btl_free = free_descriptor;
    m.btl_prepare_src = prepare_src;
    m.btl_send = send;
    m.btl_sendi = sendi;
    m.btl_get = get;
    m.btl_put = put;
    m.btl_atomic_op = atomic;
    m.btl_atomic_fop = atomic_fetch;
    m.btl_atomic_cswap = compare_and_swap;
    m.btl_register_mem = register_memory;
    m.btl_deregister_mem = deregister_memory;
    m.btl_register_error = register_error;
    m.btl_dump = mca_btl_base_dump;
}

int kernet_btl_update(mca_btl_base_endpoint_t* peer, const kernet_update_t* update,
                      const kernet_run_t* runs, const void* data, size_t bytes, void* answer,
                      size_t expected, mca_btl_base_rdma_completion_fn_t callback, void* context) {
    using namespace kernet::btl;
    kernet::Gate::Holder inside(gate());
    if (module->refuses(peer)) return OPAL_ERR_UNREACH;
    module->update({*update, runs, data, bytes},
                   pending_for(peer, answer, nullptr, expected, callback, context, nullptr));
    return OPAL_SUCCESS;
}

bool kernet_btl_is_gone(mca_btl_base_endpoint_t* peer) {
    return peer && peer->socket->gone();
}

bool kernet_btl_holds_back(mca_btl_base_endpoint_t* peer) {
    if (!peer) return false;
    kernet::Gate::Holder inside(kernet::btl::module->path().gate());
    return kernet::btl::holds_back(*peer->socket);
}

int kernet_btl_progress(void) {
    return kernet::btl::module ? kernet::btl::module->progress() : 0;
}
