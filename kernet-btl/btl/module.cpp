// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/btl/module.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>
#include <poll.h>
#include <pthread.h>
#include <csignal>
#include <fmt/format.h>
#include <sys/eventfd.h>

#include "base/log.hpp"
#include "opal/constants.h"
#include "opal/datatype/opal_convertor.h"
#include "opal/mca/btl/base/base.h"

namespace kernet::btl {

Module* module = nullptr;

Module::Module(std::unique_ptr<Endpoint> endpoint)
    : endpoint_(std::move(endpoint)), path_(endpoint_->data()) {
    path_.set_receiver(this);
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
    const bool offers = regions.offers_wait();
    if (to->socket->send_frame(frame, fragment->segment.seg_len, tag, fragment, offers)) {
        done_.push_back(fragment);
    }
    if (offers) {
        regions.send_offers(to);
        to->socket->flush();
    }
    return OPAL_SUCCESS;
}

void Module::released(Socket&, void* token) {
    if (!token) return;
    if (Regions::is_offer(token)) {
        Regions::acknowledged(token);
    } else {
        done_.push_back(static_cast<Fragment*>(token));
    }
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

bool Module::refuses(const mca_btl_base_endpoint_t* peer) {
    if (!peer || !peer->socket->gone()) [[likely]]
        return false;
    const uint32_t rank = peer->socket->peer();
    if (told_gone_.insert(rank).second)
        ghost::log::error("btl kernet: rank {} has ended: what is sent to it fails", rank);
    return true;
}

// Whoever sent it may wait for its answer for ever. Open MPI ends the job then: it cannot take back
// a send that it has begun.
void Module::report_gone(uint32_t rank) {
    std::string why = fmt::format(
        "btl kernet: rank {} has ended, and a message to it waits that can never arrive", rank);
    if (!on_error) return ghost::log::error("{}", why);
    on_error(&kernet_btl_module, MCA_BTL_ERROR_FLAGS_FATAL, nullptr, why.data());
}

void Module::know(mca_btl_base_endpoint_t* peer) {
    peers_.push_back(peer);
    places_changed_ = true;
}

void Module::forget(const mca_btl_base_endpoint_t* peer) {
    std::erase(peers_, peer);
    places_changed_ = true;
}

void Module::linked(Socket&) {
    places_changed_ = true;
}

// ob1 reads the limit once for each message, and goes on by what it has begun. A peer that is away
// may come back to either place.
void Module::set_eager_limit() {
    places_changed_ = false;
    bool any = false, all = true;
    for (const mca_btl_base_endpoint_t* peer : peers_) {
        if (!peer->socket->linked()) continue;
        any = true;
        all = all && peer->socket->local() && !peer->streams;
    }
    size_t& limit = kernet_btl_module.btl_eager_limit;
    const size_t fits =
        any && all ? std::min(far_limit_, kernet_btl_params.near_eager_limit) : far_limit_;
    if (std::exchange(limit, fits) == fits) return;
    ghost::log::debug("btl kernet: messages of up to {} bytes are sent at once", fits);
}

int Module::progress() {
    int events = 0;
    auto idle = DataPath::Idle::spin;
    const Socket* undeliverable = nullptr;
    {
        Gate::Holder inside(path_.gate());
        if (path_.gate().nested()) return 0;
        events = path_.progress_inside();
        // whatever became of the announcement
        if (regions.offers_wait()) regions.send_offers(nullptr);
        if (!done_.empty()) events += complete();
        if (places_changed_) [[unlikely]]
            set_eager_limit();
        idle = path_.how_to_idle();
        if (path_.registry().take_gone()) [[unlikely]]
            undeliverable = path_.undeliverable();
    }
    if (undeliverable) [[unlikely]]
        report_gone(undeliverable->peer());
    if (idle != DataPath::Idle::spin) [[unlikely]]
        DataPath::give_way(idle);
    return events;
}

void Module::deliver_own(Socket& socket, uint8_t tag, const uint8_t* bytes, size_t size) {
    switch (tag) {
        case tag_get:
            return answer_get(socket, bytes, size);
        case tag_missed:
            return note_missed(socket, bytes, size);
        case tag_put:
            return take_put(socket, bytes, size);
        case tag_atomic:
            return apply_atomic(socket, bytes, size);
        case tag_done:
            return note_done(socket, bytes, size);
        case tag_update:
            return take_update(socket, bytes, size);
        case tag_updated:
            return note_updated(socket, bytes, size);
        default:
            ghost::log::error("btl kernet: rank {} sent a message of tag {}", socket.peer(), tag);
    }
}

void Module::deliver(Socket& socket, uint8_t tag, uint8_t* bytes, size_t size) {
    if (is_own(tag)) return deliver_own(socket, tag, bytes, size);
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

}  // namespace kernet::btl
