// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/transport/connector.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "base/clock.hpp"
#include "base/state_machine.hpp"
#include "kernet-btl/transport/connector_internal.hpp"
#include "kernet-btl/link/net.hpp"

namespace kernet {

namespace {

using L = LinkState;

struct Row {
    L state;
    const char* name;
    uint32_t next;
};

// A rank that has left may come back, by a link of its own making.
using ghost::to;
constexpr ghost::StateTable links(std::to_array<Row>({
    {L::idle, "idle", to({L::idle, L::waiting, L::up, L::away, L::departed})},
    {L::waiting, "waiting", to({L::idle, L::waiting, L::trying, L::up, L::away, L::departed})},
    {L::trying, "trying", to({L::idle, L::waiting, L::trying, L::up, L::away, L::departed})},
    {L::up, "up", to({L::idle, L::waiting, L::up, L::away, L::departed})},
    {L::away, "away", to({L::idle, L::waiting, L::up, L::away, L::departed})},
    {L::departed, "departed", to({L::up, L::departed})},
}));

constexpr int64_t push_slowest_us = 100'000;
constexpr int64_t push_quiet_us = 500'000;  // then it begins anew

constexpr char says_suspend = 'S';
constexpr char says_bye = 'B';

}  // namespace

Connector::Connector(const EndpointConfig& config, Registry& registry,
                     const wire::HandshakeKey& key, uint64_t filters)
    : config_(config),
      registry_(registry),
      key_(key),
      filters_(filters),
      tcp_door_({.greeting_us = config.connect_timeout_us}),
      // Only processes of this user get so far, and they may have to wait for a processor.
      unix_door_({.most = 256,
                  .greeting_us = config.connect_timeout_us,
                  .mute_us = config.connect_timeout_us,
                  .spoken_us = config.connect_timeout_us}) {}

Connector::~Connector() {
    close(true);
}

Status Connector::begin_life(const std::string& life) {
    auto key = wire::HandshakeKey::make(config_.secret_hex, config_.job, life);
    GHOST_TRY(key);
    config_.life = life;
    key_ = *key;
    return {};
}

Status Connector::open(int node, const std::string& node_name, uint64_t epoch) {
    location_ = Location{};
    location_.rank = config_.rank;
    location_.epoch = epoch;
    location_.node = node;
    location_.node_name = node_name;
    find_usable();
    epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
    timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    bell_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    Status opened = epoll_ && timer_ && bell_
                        ? open_listeners()
                        : Status(ghost::sys_error("open KerNet's descriptors"));
    if (!opened) {
        close(false);
        return opened;
    }
    add(id_timer, timer_.get(), EPOLLIN);
    add(id_bell, bell_.get(), EPOLLIN);
    for (const Fd& listener : tcp_listeners_) add(id_tcp, listener.get(), EPOLLIN);
    if (unix_listener_) add(id_unix, unix_listener_.get(), EPOLLIN);
    tcp_watched_ = unix_watched_ = true;
    registry_.set_bell(bell_.get());
    location_.attached = true;
    return {};
}

// Measured anew wherever we arrive: another node may allow other links.
void Connector::find_usable() {
    usable_.clear();
    auto wanted = parse_links(config_.links);
    if (!wanted) return;  // checked by Endpoint::create()
    measured_ = wanted->measured;
    std::vector<wire::LinkKind> candidates;
    for (const LinkLine* line : wanted->lines) {
        const Status usable = line->usable ? line->usable(config_.loop.get()) : Status();
        if (usable) {
            usable_.push_back(line);
            if (wire::beside(line->kind)) candidates.push_back(line->kind);
        } else {
            ghost::log::debug("kernet: link {} cannot be had here: {}", line->name,
                              usable.error().message());
        }
    }
    choices_.set_candidates(std::move(candidates));
}

Status Connector::open_listeners() {
    if (config_.use_tcp) {
        auto addresses = ghost::own_addresses(config_.if_include);
        if (!addresses) return addresses.error();
        own_ = std::move(*addresses);
        // At the old port if it is free: where nothing has changed nobody needs to be told.
        std::vector<std::string> hosts;
        for (size_t i = 0; i < own_.size() && i < Location::max_addresses; i++) {
            hosts.push_back(own_[i].text);
        }
        auto listening = net::listen_tcp(
            tuning(), config_.if_include.empty() ? std::vector<std::string>() : hosts, port_);
        if (!listening) return listening.error();
        port_ = listening->port;
        tcp_listeners_ = std::move(listening->fds);
        for (const std::string& host : hosts) location_.tcp.push_back({host, port_});
    }
    if (!config_.use_shm) return {};
    location_.unix_name = fmt::format("@ghost/{}/{}/{}/r{}.{}", geteuid(), config_.job,
                                      config_.life, config_.rank, location_.epoch);
    auto listener = net::listen_unix(location_.unix_name);
    if (!listener && listener.error().sys == EADDRINUSE) {
        // Left by nobody (abstract names end with their sockets): another process holds it.
        location_.unix_name += fmt::format(".{:x}", ghost::realtime_us());
        listener = net::listen_unix(location_.unix_name);
    }
    if (!listener) return listener.error();
    unix_listener_ = std::move(*listener);
    return {};
}

void Connector::close(bool left) {
    registry_.set_bell(-1);
    push_at_ = look_at_ = 0;
    handshakes_.clear();
    tcp_door_.clear();
    unix_door_.clear();
    asking_ = answering_ = 0;
    for (auto& [rank, peer] : peers_) {
        peer.outgoing = peer.incoming = 0;
        peer.examine_at = 0;
        if (!peer.watch) continue;
        const char said = left ? says_bye : says_suspend;
        if (::send(peer.watch_fd.get(), &said, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            ghost::log::debug("kernet: rank {} is gone already", rank);
        }
        stop_watching(peer);
    }
    tcp_listeners_.clear();
    for (Fd* fd : {&unix_listener_, &bell_, &timer_, &epoll_}) fd->reset();
    location_.attached = false;
    location_.tcp.clear();
    location_.unix_name.clear();
}

void Connector::add(uint64_t id, int fd, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
        ghost::log::error("kernet: {}", ghost::sys_error("watch a descriptor").message());
    }
}

Connector::Peer& Connector::peer(uint32_t rank) {
    Peer& peer = peers_[rank];
    if (!peer.shared) {
        peer.shared = &registry_.peer(rank);
        peer.backoff = config_.retry_min_us;
    }
    return peer;
}

bool Connector::change(Peer& peer, LinkState to) {
    const uint32_t rank = peer.shared->rank;
    return links.change(peer.state, to, ghost::log::Level::trace,
                        [rank] { return fmt::format("kernet: link to rank {}", rank); });
}

bool Connector::same_node(const Peer& peer) const {
    if (!config_.use_shm || peer.where.unix_name.empty() || peer.shm_failed) return false;
    return peer.where.node_name == location_.node_name;
}

void Connector::service(std::vector<uint32_t>& unknown) {
    if (!is_open()) return;
    epoll_event events[32];
    const int count = epoll_wait(epoll_.get(), events, 32, 0);
    for (int i = 0; i < count; i++) {
        const uint64_t id = events[i].data.u64;
        uint64_t ignored;
        if (id == id_timer || id == id_bell) {
            const int fd = id == id_timer ? timer_.get() : bell_.get();
            if (::read(fd, &ignored, sizeof ignored) < 0) continue;
        } else if (id == id_tcp) {
            for (const Fd& listener : tcp_listeners_) {
                accept_all(listener.get(), wire::LinkKind::tcp);
            }
        } else if (id == id_unix) {
            accept_all(unix_listener_.get(), wire::LinkKind::shm);
        } else if (auto watch = watches_.find(id); watch != watches_.end()) {
            watch_event(peer(watch->second));
        } else {
            handshake_event(id, events[i].events);
        }
    }
    take_requests();
    if (push_at_ == 0 && registry_.push_wanted()) begin_pushing();
    run_timers(unknown);
    watch_listeners();
    arm_timer();
}

// While nobody is let in they stay readable.
void Connector::watch_listeners() {
    const int64_t now = ghost::monotonic_us();
    const auto watch = [this](bool& watched, bool open, uint64_t id, int fd) {
        epoll_event event{};
        event.events = open ? EPOLLIN : 0u;
        event.data.u64 = id;
        if (watched != open) epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
    };
    const bool tcp = tcp_door_.is_open(now), local = unix_door_.is_open(now);
    for (const Fd& fd : tcp_listeners_) watch(tcp_watched_, tcp, id_tcp, fd.get());
    if (unix_listener_) watch(unix_watched_, local, id_unix, unix_listener_.get());
    tcp_watched_ = tcp;
    unix_watched_ = local;
}

void Connector::take_requests() {
    for (PeerShared* shared : registry_.all()) {
        if (shared->requests.load(std::memory_order_relaxed) == 0) continue;
        const uint32_t requests = shared->requests.exchange(0, std::memory_order_acq_rel);
        take_request(peer(shared->rank), requests);
    }
}

void Connector::take_request(Peer& peer, uint32_t requests) {
    // What the data side says of a link older than the one it was given meanwhile is history.
    const bool current = peer.shared->lost_generation.load(std::memory_order_acquire) == peer.up;
    // (a link that was replaced, not lost, may have been one between other nodes)
    if (requests & link_lossy && measured_ && (current || peer.same_nodes)) {
        choices_.lost(between(peer), "too many packets were lost", ghost::monotonic_us());
    }
    if (requests & (link_lost | peer_suspended | peer_left) && current &&
        peer.state == LinkState::up) {
        stop_watching(peer);
        if (requests & link_mute) link_failed(peer, peer.kind);
        if (requests & peer_left) {
            depart(peer);
        } else if (requests & peer_suspended) {
            change(peer, LinkState::away);
        } else {
            need_link(peer, 0);
        }
    }
    if (requests & want_link && peer.state == LinkState::idle) need_link(peer, 0);
}

// Not tried again before one of us moves.
void Connector::link_failed(Peer& peer, wire::LinkKind kind) {
    const LinkLine* line = find_link(kind);
    ghost::log::warning("kernet: rank {} is not reached by link {}: going on by another",
                        peer.shared->rank, line ? line->name : "?");
    peer.failed_links |= bit(kind);
    if (measured_) choices_.lost(between(peer), "nothing came", ghost::monotonic_us());
}

void Connector::need_link(Peer& peer, int64_t delay_us) {
    peer.replaces = false;
    if (peer.where.ended) return depart(peer);
    if (peer.state == LinkState::departed || !change(peer, LinkState::waiting)) return;
    peer.retry_at = ghost::monotonic_us() + delay_us;
}

void Connector::depart(Peer& peer) {
    (void)change(peer, LinkState::departed);
    registry_.set_gone(*peer.shared, peer.where.ended);
}

void Connector::watch_event(Peer& peer) {
    char said = 0;
    const ssize_t got = ::recv(peer.watch_fd.get(), &said, 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    stop_watching(peer);
    if (peer.state != LinkState::up) return;
    if (got == 1 && said == says_bye) {
        depart(peer);
    } else if (got == 1 && said == says_suspend) {
        change(peer, LinkState::away);
    } else {
        need_link(peer, 0);
    }
}

void Connector::stop_watching(Peer& peer) {
    if (!peer.watch) return;
    watches_.erase(peer.watch);
    peer.watch = 0;
    peer.watch_fd.reset();
}

void Connector::set_location(const Location& where) {
    if (where.rank == config_.rank) return;
    Peer& p = peer(where.rank);
    if (where.epoch < p.epoch || (p.known && where == p.where)) return;
    const bool moved = p.known && where.epoch > p.epoch;
    p.where = where;
    p.known = true;
    p.ways.clear();
    p.epoch = where.epoch;
    p.shm_failed = false;
    p.failed_links = 0;
    p.failures = p.absences = 0;
    p.backoff = config_.retry_min_us;
    if (where.ended) {
        // (a link it has left is read to its end before)
        if (p.state != LinkState::up) depart(p);
    } else if (!where.attached) {
        if (p.state == LinkState::waiting) change(p, LinkState::away);
    } else if (p.state == LinkState::waiting) {
        need_link(p, 0);
    } else if (p.state == LinkState::away || (moved && p.state == LinkState::up)) {
        // The side that moved connects at once by itself; this is only in case it cannot.
        need_link(p, 100'000);
    }
    if (is_open()) arm_timer();
}

void Connector::reconnect_all() {
    for (auto& [rank, peer] : peers_) {
        if (peer.state == LinkState::departed) continue;
        peer.failures = peer.absences = 0;
        peer.backoff = config_.retry_min_us;
        peer.ways.clear();
        peer.shm_failed = false;
        peer.failed_links = 0;
        if (!peer.had_link && peer.state == LinkState::idle) continue;
        need_link(peer, 0);
    }
    arm_timer();
}

void Connector::run_timers(std::vector<uint32_t>& unknown) {
    const int64_t now = ghost::monotonic_us();
    std::vector<uint64_t> late;
    for (auto& [id, shake] : handshakes_) {
        if (shake->deadline <= now) late.push_back(id);
    }
    for (uint64_t id : late) end_handshake(id);
    for (auto& [rank, peer] : peers_) {
        // While the peer's own attempt is in progress, ours would only cross it.
        if (peer.state == LinkState::waiting && peer.retry_at <= now && !peer.incoming) {
            begin_attempt(peer, unknown);
        }
        if (peer.state == LinkState::up && peer.examine_at != 0 && peer.examine_at <= now) {
            examine(peer);
        }
    }
    for (const uint64_t id : {asking_, answering_}) {
        const auto trial = handshakes_.find(id);
        if (trial == handshakes_.end() || !trial->second->trial) continue;
        if (trial->second->trial->due_at() <= now) handshake_event(id, 0);
    }
}

// Where messages wait for room all the time, rarely: whoever sends them makes room, too.
void Connector::begin_pushing() {
    const int64_t now = ghost::monotonic_us();
    if (now - pushed_at_ > push_quiet_us) push_every_ = push_first_us;
    push_at_ = now + push_every_;
}

void Connector::pushed(bool something_waits, bool moved) {
    if (!is_open()) return;
    pushed_at_ = ghost::monotonic_us();
    if (moved) push_every_ = push_first_us;  // there will soon be room for more
    push_at_ = something_waits ? pushed_at_ + push_every_ : 0;
    push_every_ = std::min(push_every_ * 2, push_slowest_us);
    arm_timer();
}

void Connector::looked() {
    if (!is_open()) return;
    const bool any = std::any_of(peers_.begin(), peers_.end(), [](const auto& item) {
        const auto kind = item.second.kind;
        return item.second.state == LinkState::up &&
               (kind == wire::LinkKind::tcp || wire::paired(kind));
    });
    look_at_ = any ? ghost::monotonic_us() + config_.dead_after_us / looks_before_death : 0;
    arm_timer();
}

void Connector::arm_timer() {
    int64_t next = push_at_;
    const auto earlier = [&next](int64_t at) { next = next ? std::min(next, at) : at; };
    if (look_at_) earlier(look_at_);
    for (ghost::Doorway* door : {&tcp_door_, &unix_door_}) {
        if (const int64_t at = door->wakes_at(ghost::monotonic_us())) earlier(at);
    }
    for (auto& [id, shake] : handshakes_) {
        earlier(shake->deadline);
        if (shake->trial) earlier(shake->trial->due_at());
    }
    for (auto& [rank, peer] : peers_) {
        if (peer.state == LinkState::waiting && !peer.incoming) earlier(peer.retry_at);
        if (peer.state == LinkState::up && peer.examine_at != 0) earlier(peer.examine_at);
    }
    itimerspec spec{};
    if (next) {
        next = std::max<int64_t>(next, 1);
        spec.it_value = {next / 1'000'000, next % 1'000'000 * 1000};
    }
    timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

}  // namespace kernet
