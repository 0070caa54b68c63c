#include "kernet-btl/transport/datapath.hpp"

#include <algorithm>
#include <sched.h>
#include <ctime>
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
    for (Socket* socket : rings_) {
        if (socket->local()) events += socket->poll_ring();
    }
    if (!streams_.empty() &&
        (rings_.empty() || ++pass_ % stream_every == 0 || passed_.was_long_ago()))
        events += poll_streams();
    if (unlinked_ != 0) [[unlikely]]
        wait_for_links(events);
    return events;
}

// Nothing comes from a peer that is away: whoever brings it back gets the core.
void DataPath::wait_for_links(int events) {
    if (events != 0) {
        idle_passes_ = 0;
        return;
    }
    if (!tired()) {
        ++idle_passes_;
        sched_yield();
    }
}

void DataPath::nap() {
    const timespec time{0, 50'000};
    nanosleep(&time, nullptr);  // an early end does no harm
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
    }
    for (Socket* socket : streams_) {
        // Those that were not asked about, and what is out of the sockets but not taken yet.
        if (socket->on_stream() && (!poller_ || socket->stream().holds()))
            events += socket->poll_stream();
    }
    for (Socket* socket : streams_) {
        if (socket->on_stream()) events += socket->attend_stream();
    }
    if (events > 0) pass_ = stream_every - 1;  // where something comes, more may
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
    rings_.clear();
    streams_.clear();
    unlinked_ = 0;
    idle_passes_ = 0;
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
    const bool many = streams_.size() > tried_singly;
    // (a link of which nothing tells must be tried)
    const bool all_tell = many && std::all_of(streams_.begin(), streams_.end(), [](auto* socket) {
                              return socket->stream().fd() >= 0;
                          });
    poller_.reset(all_tell ? epoll_create1(EPOLL_CLOEXEC) : -1);
    if (marked || !poller_) tell_streams();
    if (!poller_) return;  // also without descriptors: then all are tried
    for (Socket* socket : streams_) {
        epoll_event event{};
        event.events = EPOLLIN | EPOLLRDHUP;
        event.data.ptr = socket;
        epoll_ctl(poller_.get(), EPOLL_CTL_ADD, socket->stream().fd(), &event);
    }
}

// Whether somebody waits for their descriptors: the poller, or a caller that sleeps.
void DataPath::tell_streams() {
    const bool waited = poller_.valid() || sleeping_ > 0;
    for (const Socket* socket : streams_) {
        if (socket->on_stream()) socket->stream().waited_for(waited);
    }
}

void DataPath::begin_sleep(std::vector<pollfd>& readable) {
    if (sleeping_++ == 0 && !poller_) tell_streams();
    if (poller_) {
        readable.push_back({poller_.get(), POLLIN, 0});
        return;
    }
    for (const Socket* socket : streams_) {
        if (socket->on_stream()) readable.push_back({socket->stream().fd(), POLLIN, 0});
    }
}

void DataPath::end_sleep() {
    if (--sleeping_ == 0 && !poller_) tell_streams();
}

void DataPath::drain(int64_t limit_us, bool absent) {
    const int64_t end = ghost::monotonic_us() + limit_us;
    for (bool busy = true; busy && ghost::monotonic_us() < end;) {
        progress();
        Gate::Holder inside(gate_);
        busy = false;
        for (auto& [rank, socket] : sockets_) {
            busy |= socket->linked() ? socket->unsettled() : absent && socket->expects_link();
        }
    }
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
        out.waits |= socket->on_stream() && socket->stream().tended();
    }
    registry_.set_push_wanted(out.waits);
    return out;
}

void DataPath::leave_dead() {
    for (auto& [rank, socket] : sockets_) {
        if (socket->on_stream()) socket->leave_if_dead();
    }
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
