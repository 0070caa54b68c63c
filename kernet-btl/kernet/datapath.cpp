#include "kernet-btl/kernet/datapath.hpp"

#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/log.hpp"

namespace kernet {

namespace {

// While rings are in use, sockets are looked at every so many passes: one look costs as much as
// two messages over a ring (facts: 240 ns).
constexpr uint32_t stream_every = 32;
// Up to so many sockets are tried one by one: a message is taken 0.5 µs earlier than by epoll, one
// try in vain costs 0.24.
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
        slot = std::make_unique<Socket>(*this, peer, *sink_);
        stale_ = true;
    }
    return *slot;
}

Socket& DataPath::attach(uint32_t peer) {
    Inside inside(gate_);
    return socket_of(registry_.peer(peer));
}

int DataPath::progress_inside() {
    if (!registry_.offers.empty()) [[unlikely]]
        take_offers();
    if (stale_) [[unlikely]]
        sort_links();
    int events = 0;
    for (Socket* socket : rings_) {
        if (socket->local()) events += socket->poll_ring();
    }
    if (!streams_.empty() && (rings_.empty() || ++pass_ % stream_every == 0))
        events += poll_streams();
    // Nothing comes from a peer that is away: whoever brings it back gets the core.
    if (unlinked_ != 0 && events == 0) [[unlikely]]
        sched_yield();
    return events;
}

int DataPath::poll_streams() {
    int events = 0;
    if (poller_) {
        epoll_event ready[16];
        const int count = epoll_wait(poller_.get(), ready, 16, 0);
        for (int i = 0; i < count; i++) {
            auto* socket = static_cast<Socket*>(ready[i].data.ptr);
            if (socket->on_stream()) events += socket->poll_stream();
        }
    } else {
        for (Socket* socket : streams_) {
            if (socket->on_stream()) events += socket->poll_stream();
        }
    }
    for (Socket* socket : streams_) {
        if (socket->on_stream()) events += socket->attend_stream();
    }
    if (events > 0) pass_ = stream_every - 1;  // where something comes, more may
    looks_.store(looks_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return events;
}

void DataPath::take_offers() {
    Offer* list = registry_.offers.take();
    while (list) {
        std::unique_ptr<Offer> offer(list);
        list = offer->next;
        socket_of(*offer->peer).adopt(*offer);
    }
}

void DataPath::sort_links() {
    stale_ = false;
    rings_.clear();
    streams_.clear();
    unlinked_ = 0;
    bool tended = false;
    for (auto& [rank, socket] : sockets_) {
        if (socket->expects_link()) ++unlinked_;
        if (socket->linked()) (socket->local() ? rings_ : streams_).push_back(socket.get());
        tended |= socket->on_stream() && socket->stream().tended();
    }
    tended_.store(tended, std::memory_order_relaxed);
    watch_streams();
}

// One epoll set answers for many sockets at the price of one; a few are quicker tried one by one.
void DataPath::watch_streams() {
    const bool marked = !poller_;  // those that were here; new links are not
    bool silent = false;           // a link that must be tried
    for (const Socket* socket : streams_) silent |= socket->stream().fd() < 0;
    poller_.reset(streams_.size() > tried_singly && !silent ? epoll_create1(EPOLL_CLOEXEC) : -1);
    if (marked || !poller_) {
        for (const Socket* socket : streams_) socket->stream().waited_for(poller_.valid());
    }
    if (!poller_) return;  // also without descriptors: then all are tried
    for (Socket* socket : streams_) {
        epoll_event event{};
        event.events = EPOLLIN | EPOLLRDHUP;
        event.data.ptr = socket;
        epoll_ctl(poller_.get(), EPOLL_CTL_ADD, socket->stream().fd(), &event);
    }
}

void DataPath::drain(int64_t limit_us) {
    const int64_t end = ghost::monotonic_us() + limit_us;
    for (bool busy = true; busy && ghost::monotonic_us() < end;) {
        progress();
        Inside inside(gate_);
        busy = false;
        for (auto& [rank, socket] : sockets_) busy |= socket->linked() && socket->unsettled();
    }
}

void DataPath::unattach_all() {
    Inside inside(gate_);
    for (auto& [rank, socket] : sockets_) {
        if (socket->state() != SocketState::unattached) socket->unattach();
    }
}

bool DataPath::push() {
    Offer* list = registry_.offers.take();
    while (list) {
        std::unique_ptr<Offer> offer(list);
        list = offer->next;
        socket_of(*offer->peer).adopt(*offer);
    }
    bool waits = false;
    for (auto& [rank, socket] : sockets_) {
        waits |= socket->push();
        // A link of packets has to be looked at as long as there is one.
        waits |= socket->on_stream() && socket->stream().tended();
    }
    return waits;
}

void DataPath::suspend_all() {
    Mailbox::drop(registry_.offers.take());
    for (auto& [rank, socket] : sockets_) socket->suspend();
    sort_links();
}

void DataPath::wakeup_all() {
    for (auto& [rank, socket] : sockets_) socket->wakeup();
}

}  // namespace kernet
