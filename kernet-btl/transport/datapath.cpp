// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/transport/datapath.hpp"

#include <algorithm>
#include <sched.h>
#include <ctime>
#include <sys/epoll.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/log.hpp"

namespace kernet {

namespace {

// While there are quick links, the others are looked at every so many passes: one look costs a
// system call, which takes as long as two messages over a ring.
constexpr uint32_t slow_every = 32;
// Up to so many links are tried one by one: a message is taken earlier than by epoll, by as much
// as two tries in vain cost.
constexpr size_t tried_singly = 3;

}  // namespace

void Registry::ring_bell() {
    const int fd = bell_.load(std::memory_order_acquire);
    const uint64_t one = 1;
    // Full or none: the control side looks at the requests anyway.
    if (fd >= 0 && ::write(fd, &one, sizeof one) < 0) return;
}

Socket& DataPath::socket_of(PeerShared& peer) {
    auto& slot = sockets_[peer.rank];
    if (!slot) {
        slot = std::make_unique<Socket>(*this, peer, *receiver_);
        stale_ = true;
    }
    return *slot;
}

Socket& DataPath::attach(uint32_t peer) {
    Gate::Holder inside(gate_);
    return socket_of(registry_.peer(peer));
}

int DataPath::progress_inside() {
    if (!registry_.offers.empty()) [[unlikely]]
        take_offers();
    if (stale_) [[unlikely]]
        sort_links();
    if (registry_.push_wanted()) [[unlikely]]
        count_look();
    int events = 0;
    for (Socket* socket : quick_) {
        if (socket->quiet() || !socket->linked()) continue;
        events += socket->poll();
        if (socket->backlog() > 0 && socket->linked()) [[unlikely]]
            events += socket->attend();
    }
    if (!slow_.empty() && (quick_.empty() || ++pass_ % slow_every == 0 || passed_.was_long_ago()))
        events += poll_slow();
    if (unlinked_ != 0 || crowded_) [[unlikely]]
        count_idle(events);
    return events;
}

void DataPath::count_idle(int events) {
    idle_passes_ = events != 0 ? 0 : std::min(idle_passes_ + 1, passes_before_sleep);
}

void DataPath::give_way(Idle idle) {
    if (idle == Idle::yield) {
        sched_yield();
        return;
    }
    const timespec time{0, 50'000};
    nanosleep(&time, nullptr);  // an early end does no harm
}

int DataPath::poll_slow() {
    int events = 0;
    if (poller_) {
        epoll_event ready[16];
        const int count = epoll_wait(poller_.get(), ready, 16, 0);
        for (int i = 0; i < count; i++) {
            auto* socket = static_cast<Socket*>(ready[i].data.ptr);
            if (socket->linked()) events += socket->poll();
        }
    }
    for (Socket* socket : slow_) {
        // Those that were not asked about, and what is out of the sockets but not taken yet.
        if (socket->linked() && (!poller_ || socket->link().holds())) events += socket->poll();
    }
    for (Socket* socket : slow_) {
        if (socket->linked()) events += socket->attend();
    }
    if (events > 0) pass_ = slow_every - 1;  // where something comes, more may
    count_look();
    return events;
}

void DataPath::take_offers() {
    LinkHandoff* list = registry_.offers.take();
    while (list) {
        std::unique_ptr<LinkHandoff> offer(list);
        list = offer->next;
        socket_of(*offer->peer).adopt(*offer);
    }
}

void DataPath::sort_links() {
    stale_ = false;
    quick_.clear();
    slow_.clear();
    unlinked_ = 0;
    idle_passes_ = 0;
    bool tended = false;
    for (auto& [rank, socket] : sockets_) {
        if (socket->expects_link()) ++unlinked_;
        if (!socket->linked()) continue;
        (socket->local() ? quick_ : slow_).push_back(socket.get());
        tended |= socket->link().tended();
    }
    tended_.store(tended, std::memory_order_relaxed);
    if (processors_ == 0) processors_ = std::max(1U, std::thread::hardware_concurrency());
    crowded_ = quick_.size() >= processors_;
    watch_slow();
}

// One epoll set answers for many sockets at the price of one; a few are quicker tried one by one.
void DataPath::watch_slow() {
    const bool marked = !poller_;  // those that were here; new links are not
    const bool many = slow_.size() > tried_singly;
    // (a link of which nothing tells must be tried)
    const bool all_tell = many && std::all_of(slow_.begin(), slow_.end(), [](auto* socket) {
                              return socket->link().fd() >= 0;
                          });
    poller_.reset(all_tell ? epoll_create1(EPOLL_CLOEXEC) : -1);
    if (marked || !poller_) tell_slow();
    if (!poller_) return;  // also without descriptors: then all are tried
    for (Socket* socket : slow_) {
        epoll_event event{};
        event.events = EPOLLIN | EPOLLRDHUP;
        event.data.ptr = socket;
        epoll_ctl(poller_.get(), EPOLL_CTL_ADD, socket->link().fd(), &event);
    }
}

// Whether somebody waits for their descriptors: the poller, or a caller that sleeps.
void DataPath::tell_slow() {
    const bool waited = poller_.valid() || sleeping_ > 0;
    for (const Socket* socket : slow_) {
        if (socket->linked()) socket->link().waited_for(waited);
    }
}

void DataPath::begin_sleep(std::vector<pollfd>& readable) {
    if (sleeping_++ == 0 && !poller_) tell_slow();
    if (poller_) {
        readable.push_back({poller_.get(), POLLIN, 0});
        return;
    }
    for (const Socket* socket : slow_) {
        if (socket->linked()) readable.push_back({socket->link().fd(), POLLIN, 0});
    }
}

void DataPath::end_sleep() {
    if (--sleeping_ == 0 && !poller_) tell_slow();
}

bool DataPath::drain(int64_t limit_us, Drained how) {
    const auto waits = [how](Socket& socket) {
        if (how == Drained::acknowledged) return socket.undelivered();
        return socket.linked() ? socket.unsettled() : how == Drained::met && socket.expects_link();
    };
    const int64_t end = ghost::monotonic_us() + limit_us;
    do {
        progress();
        Gate::Holder inside(gate_);
        if (std::ranges::none_of(sockets_, [&](auto& one) { return waits(*one.second); }))
            return true;
    } while (ghost::monotonic_us() < end);
    return false;
}

Socket* DataPath::undeliverable() {
    links_changed();  // there is nothing to wait for
    for (auto& [rank, socket] : sockets_)
        if (socket->undeliverable()) return socket.get();
    return nullptr;
}

void DataPath::unattach_all() {
    Gate::Holder inside(gate_);
    for (auto& [rank, socket] : sockets_) {
        if (socket->state() != SocketState::unattached) socket->unattach();
    }
}

DataPath::Pushed DataPath::push() {
    LinkHandoff* list = registry_.offers.take();
    while (list) {
        std::unique_ptr<LinkHandoff> offer(list);
        list = offer->next;
        socket_of(*offer->peer).adopt(*offer);
    }
    registry_.set_push_wanted(true);  // nobody needs to ask while this goes on
    Pushed out;
    for (auto& [rank, socket] : sockets_) {
        const size_t before = socket->backlog();
        out.waits |= socket->push();
        out.moved |= socket->backlog() < before;
        // A link of packets has to be looked at as long as there is one.
        out.waits |= socket->linked() && socket->link().tended();
    }
    registry_.set_push_wanted(out.waits);
    return out;
}

void DataPath::leave_dead() {
    for (auto& [rank, socket] : sockets_) {
        if (socket->linked()) socket->leave_if_dead();
    }
}

void DataPath::suspend_all() {
    Mailbox::drop(registry_.offers.take());
    for (auto& [rank, socket] : sockets_) socket->suspend();
    sort_links();
}

void DataPath::begin_life(const std::string& life) {
    if (!filters_) return;
    filters_->begin_life(life);
    for (auto& [rank, socket] : sockets_) socket->begin_life();
}

void DataPath::wakeup_all() {
    processors_ = 0;  // perhaps of another node
    for (auto& [rank, socket] : sockets_) socket->wakeup();
}

}  // namespace kernet
