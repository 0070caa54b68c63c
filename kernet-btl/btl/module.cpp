#include "kernet-btl/btl/module.hpp"

#include <cstring>
#include <poll.h>
#include <pthread.h>
#include <csignal>
#include <sys/eventfd.h>

#include "base/log.hpp"
#include "opal/constants.h"
#include "opal/datatype/opal_convertor.h"
#include "opal/mca/btl/base/base.h"

namespace kernet::btl {

Module* module = nullptr;

namespace {

// Our own messages between BTLs; within the tags reserved for BTLs (btl.h).
constexpr uint8_t tag_get = MCA_BTL_TAG_BTL + 0x1f;

struct GetRequest {
    uint64_t region;
    uint64_t address;
    uint64_t size;
    uint64_t cookie;
};

}  // namespace

// --- registered memory ---

mca_btl_base_registration_handle_t* Regions::add(const void* base, size_t size) {
    if (free_.empty()) {
        free_.push_back(static_cast<uint32_t>(slots_.size()));
        slots_.push_back(std::make_unique<mca_btl_base_registration_handle_t>());
        slots_.back()->id = slots_.size();
    }
    auto* handle = slots_[free_.back()].get();
    free_.pop_back();
    handle->base = reinterpret_cast<uint64_t>(base);
    handle->size = size;
    return handle;
}

void Regions::remove(mca_btl_base_registration_handle_t* handle) {
    const auto slot = static_cast<uint32_t>(handle->id) - 1;
    handle->id += uint64_t{1} << 32;
    handle->size = 0;
    free_.push_back(slot);
}

bool Regions::covers(uint64_t id, uint64_t address, uint64_t size) const {
    const uint64_t slot = static_cast<uint32_t>(id) - uint64_t{1};
    if (slot >= slots_.size()) return false;
    const auto& handle = *slots_[slot];
    return handle.id == id && address >= handle.base && size <= handle.size &&
           address - handle.base <= handle.size - size;
}

// --- the module ---

Module::Module(std::unique_ptr<Endpoint> endpoint)
    : endpoint_(std::move(endpoint)), path_(endpoint_->data()) {
    path_.set_sink(this);
    path_.set_pieces(kernet_btl_params.piece_min, kernet_btl_params.piece_max);
}

Module::~Module() {
    stop();
    path_.unattach_all();  // no call into this object may come later
    for (Fragment* fragment : done_) free(fragment);
    for (Fragment* fragment : free_) delete fragment;
}

Status Module::start(const AgentConfig* agent) {
    if (agent) {
        auto started = RankAgent::start(*endpoint_, *agent);
        if (!started) return started.error();
        agent_ = std::move(*started);
        return {};
    }
    stop_server_.reset(eventfd(0, EFD_CLOEXEC));
    if (!stop_server_) return ghost::sys_error("start KerNet's service thread");
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are the application's
    server_ = std::thread([this] { serve(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return {};
}

void Module::serve() {
    pollfd fds[2] = {{endpoint_->service_fd(), POLLIN, 0}, {stop_server_.get(), POLLIN, 0}};
    while (fds[1].revents == 0) {
        if (poll(fds, 2, -1) > 0 && fds[0].revents) endpoint_->service();
    }
}

void Module::stop() {
    if (agent_) agent_->stop();
    if (!server_.joinable()) return;
    const uint64_t one = 1;
    if (::write(stop_server_.get(), &one, sizeof one) == sizeof one) server_.join();
}

Fragment* Module::fragment(mca_btl_base_endpoint_t* to, size_t size, uint32_t flags) {
    if (size > wire::max_message) return nullptr;
    Fragment* fragment;
    if (free_.empty()) {
        fragment = new Fragment;
        std::memset(static_cast<void*>(fragment), 0, sizeof *fragment);
        fragment->base.des_segments = &fragment->segment;
        fragment->base.des_segment_count = 1;
        fragment->base.order = MCA_BTL_NO_ORDER;
    } else {
        fragment = free_.back();
        free_.pop_back();
    }
    fragment->frame = path_.pool().get(size);
    fragment->endpoint = to;
    fragment->segment.seg_addr.pval = fragment->frame->bytes();
    fragment->segment.seg_len = size;
    fragment->base.des_flags = flags;
    fragment->base.des_cbfunc = nullptr;
    return fragment;
}

void Module::free(Fragment* fragment) {
    if (fragment->frame) path_.pool().put(std::exchange(fragment->frame, nullptr));
    free_.push_back(fragment);
}

// The callback always comes, and from progress: ob1 does not cope with "sent, no callback" for
// all of its descriptors (Open MPI issue 3845; btl/vader does the same).
int Module::send(mca_btl_base_endpoint_t* to, Fragment* fragment, uint8_t tag) {
    Frame* frame = std::exchange(fragment->frame, nullptr);
    fragment->base.des_flags |= MCA_BTL_DES_SEND_ALWAYS_CALLBACK;
    fragment->endpoint = to;
    if (to->socket->send_frame(frame, fragment->segment.seg_len, tag, fragment)) {
        done_.push_back(fragment);
    }
    return OPAL_SUCCESS;
}

void Module::released(Socket&, void* token) {
    if (token) done_.push_back(static_cast<Fragment*>(token));
}

int Module::complete() {
    int events = 0;
    while (!done_.empty()) {
        calling_.swap(done_);  // callbacks may send, which makes new ones
        for (Fragment* fragment : calling_) {
            const bool ours = fragment->base.des_flags & MCA_BTL_DES_FLAGS_BTL_OWNERSHIP;
            fragment->base.des_cbfunc(&kernet_btl_module, fragment->endpoint, &fragment->base,
                                      OPAL_SUCCESS);
            if (ours) free(fragment);
            events++;
        }
        calling_.clear();
    }
    return events;
}

int Module::progress() {
    Inside inside(path_.gate());
    if (path_.gate().nested()) return 0;
    int events = path_.progress_inside();
    if (!done_.empty()) events += complete();
    return events;
}

void Module::deliver(Socket& socket, uint8_t tag, uint8_t* bytes, size_t size) {
    if (tag == tag_get) {
        answer_get(socket, bytes, size);
        return;
    }
    const mca_btl_active_message_callback_t& receiver = mca_btl_base_active_message_trigger[tag];
    if (!receiver.cbfunc) {
        ghost::log::error("btl kernet: message for tag {}, which nobody receives", tag);
        return;
    }
    mca_btl_base_segment_t segment;
    segment.seg_addr.pval = bytes;
    segment.seg_len = size;
    mca_btl_base_descriptor_t descriptor;
    descriptor.des_segments = &segment;
    descriptor.des_segment_count = 1;
    receiver.cbfunc(&kernet_btl_module, tag, &descriptor, receiver.cbdata);
}

// --- get ---

int Module::get(const PendingGet& what, uint64_t remote, const void* remote_handle) {
    mca_btl_base_registration_handle_t handle;
    std::memcpy(&handle, remote_handle, sizeof handle);  // inside a packed header
    if (free_gets_.empty()) {
        free_gets_.push_back(static_cast<uint32_t>(gets_.size()));
        gets_.emplace_back();
    }
    const uint32_t slot = free_gets_.back();
    free_gets_.pop_back();
    gets_[slot] = what;
    gets_[slot].cookie = next_cookie_++ << 20 | slot;
    const GetRequest request{handle.id, remote, what.size, gets_[slot].cookie};
    Socket& socket = *what.endpoint->socket;
    std::memcpy(socket.reserve(sizeof request), &request, sizeof request);
    socket.commit(sizeof request, tag_get);
    return OPAL_SUCCESS;
}

void Module::answer_get(Socket& socket, const uint8_t* bytes, size_t size) {
    GetRequest request;
    if (size != sizeof request) {
        ghost::log::error("btl kernet: malformed get from rank {}", socket.peer());
        return;
    }
    std::memcpy(&request, bytes, sizeof request);
    if (request.size == 0 || !regions.covers(request.region, request.address, request.size)) {
        ghost::log::error("btl kernet: rank {} asked for memory that is not registered",
                          socket.peer());
        return;
    }
    socket.send_bulk(tag_get, &request.cookie, sizeof request.cookie,
                     reinterpret_cast<const void*>(request.address), request.size, nullptr);
}

PendingGet* Module::pending(uint8_t tag, const uint8_t* head, size_t head_size) {
    uint64_t cookie = 0;
    if (tag != tag_get || head_size != sizeof cookie) return nullptr;
    std::memcpy(&cookie, head, sizeof cookie);
    const uint64_t slot = cookie & 0xfffff;
    if (slot >= gets_.size() || gets_[slot].cookie != cookie) return nullptr;
    return &gets_[slot];
}

uint8_t* Module::place(Socket& socket, uint8_t tag, const uint8_t* head, size_t head_size,
                       size_t size) {
    const PendingGet* get = pending(tag, head, head_size);
    if (!get || get->size != size || get->peer != socket.peer()) {
        ghost::log::error("btl kernet: rank {} sent data nobody asked for", socket.peer());
        return nullptr;
    }
    return static_cast<uint8_t*>(get->address);
}

void Module::placed(Socket&, uint8_t tag, const uint8_t* head, size_t head_size, uint8_t*, size_t) {
    PendingGet* slot = pending(tag, head, head_size);
    if (!slot) return;
    const PendingGet get = *slot;
    slot->cookie = 0;
    free_gets_.push_back(static_cast<uint32_t>(slot - gets_.data()));
    get.callback(&kernet_btl_module, get.endpoint, get.address, get.handle, get.context, get.data,
                 OPAL_SUCCESS);
}

}  // namespace kernet::btl
