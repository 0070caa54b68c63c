// SPDX-License-Identifier: BSD-3-Clause
// The connector's handshakes: who may connect, which of two crossing connections wins, and what is
// agreed before the data side gets a link. docs/WIRE.md, "Handshake".
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "kernet-btl/transport/connector_internal.hpp"
#include "kernet-btl/link/net.hpp"

namespace kernet {

namespace {

constexpr int accepted_at_once = 64;     // then others get their turn
constexpr uint32_t failures_to_ask = 3;  // then the location may be out of date
constexpr int64_t ask_interval_us = 20'000;
// A peer that is suspended connects by itself as soon as it is back; trying is only in case it
// cannot.
constexpr int64_t absent_pause_us = 20'000;
// So often a peer of this node may be absent before it is taken for one of another network name
// space, where names of Unix sockets do not reach (unix(7)).
constexpr uint32_t absences_to_doubt = 8;
constexpr int64_t crossing_delay_us = 20'000;  // the winner's attempt gets this long
constexpr size_t most_hellos = 32;             // of a peer, known again
constexpr int64_t settling_us = 5'000;         // a link's first messages get this long
// One that was made again: after a stop others may still be on their way back and want the
// processors, and an end of what is better may keep this thread for milliseconds.
constexpr int64_t settling_again_us = 200'000;

bool send_all(const Fd& fd, const void* bytes, size_t size) {
    return ::send(fd.get(), bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

}  // namespace

// --- our attempts ---

void Connector::begin_attempt(Peer& peer, std::vector<uint32_t>& unknown) {
    const int64_t now = ghost::monotonic_us();
    const bool lost_track = !peer.known || peer.failures >= failures_to_ask;
    if (lost_track && now - peer.asked_at >= std::max(ask_interval_us, peer.backoff)) {
        peer.asked_at = now;
        unknown.push_back(peer.shared->rank);
    }
    if (!peer.known || !peer.where.attached) {
        peer.retry_at = now + config_.retry_max_us / 10;
        return;
    }
    auto shake = std::make_unique<Handshake>();
    shake->incoming = false;
    shake->has_peer = true;
    shake->rank = peer.shared->rank;
    auto fd = begin_connection(peer, shake->kind);
    if (!fd) {
        const int why = fd.error().sys;
        const bool absent = why == ECONNREFUSED || why == EAGAIN;
        if (shake->kind == wire::LinkKind::shm) doubt_shm(peer, absent);
        attempt_failed(peer, shake->kind, fd.error().message().c_str(), absent);
        return;
    }
    shake->fd = std::move(*fd);
    shake->step = Handshake::Step::connecting;
    shake->deadline = now + config_.connect_timeout_us;
    shake->id = next_id_++;
    peer.outgoing = shake->id;
    change(peer, LinkState::trying);
    add(shake->id, shake->fd.get(), EPOLLOUT);
    handshakes_.emplace(shake->id, std::move(shake));
}

Result<Fd> Connector::begin_connection(Peer& peer, wire::LinkKind& kind) {
    if (same_node(peer)) {
        kind = wire::LinkKind::shm;
        return net::connect_unix(peer.where.unix_name);
    }
    kind = choose(peer);
    // Nobody waits for a link that takes its time, after a stop least of all: what is to be had at
    // once first, which examine() replaces.
    if (measured_ && !peer.replaces && find_link(kind)->slow_to_make) kind = wire::LinkKind::tcp;
    if (!config_.use_tcp || peer.where.tcp.empty()) {
        peer.shm_failed = false;
        return ghost::make_error(ghost::Code::not_found, "find an address of the peer");
    }
    if (peer.ways.empty()) find_ways(peer);
    const TcpAddress& address = peer.ways[peer.way % peer.ways.size()];
    return net::connect_tcp(address.host, address.port, tuning());
}

void Connector::find_ways(Peer& peer) const {
    std::vector<std::string> hosts;
    for (const TcpAddress& address : peer.where.tcp) hosts.push_back(address.host);
    const bool here = peer.where.node_name == location_.node_name;
    for (size_t i : ghost::by_quality(hosts, own_, here)) peer.ways.push_back(peer.where.tcp[i]);
    peer.way = 0;
}

// That measured to be the best, or the first of the links preferred that can be had; by the
// connection itself if there is none.
wire::LinkKind Connector::choose(const Peer& peer) const {
    if (measured_) {
        const wire::LinkKind kind = choices_.kind(between(peer));
        return peer.failed_links & bit(kind) ? wire::LinkKind::tcp : kind;
    }
    for (const LinkLine* line : usable_) {
        if (line->kind == wire::LinkKind::shm) continue;  // has been thought of
        if (!(peer.failed_links & bit(line->kind))) return line->kind;
    }
    return wire::LinkKind::tcp;
}

// Our end of a link. None: what was asked for stays with the connection, which may also be gone
// (Code::peer_lost).
Status Connector::make_end(Handshake& shake, wire::LinkKind kind) {
    const LinkLine* line = find_link(kind);
    shake.kind = wire::LinkKind::tcp;
    if (!line) return ghost::make_error(ghost::Code::unsupported, "make a link");
    LinkSite site{.connection = shake.fd,
                  .loop = config_.loop.get(),
                  .dead_after_us = config_.dead_after_us,
                  .ring = {config_.ring_frames, static_cast<uint32_t>(config_.ring_bytes)},
                  .pieces = config_.ring_pieces,
                  .faults = config_.faults};
    site.faults.seed += config_.rank * 1'000'003 + static_cast<uint32_t>(shake.id);
    auto made = line->make(site);
    if (!made) {
        ghost::log::debug("kernet: no link {}: {}", line->name, made.error().message());
        return made.error();
    }
    shake.end = std::move(*made);
    shake.kind = kind;
    return {};
}

Status Connector::connect_end(Handshake& shake, const wire::LinkAddress& to) {
    const wire::LinkMarks in =
        wire::link_marks(shake.hello, shake.welcome.nonce, shake.incoming, key_);
    Status connected = shake.end->connect(to, in.token);
    if (connected) return connected;
    ghost::log::debug("kernet: no link {} to rank {}: {}", find_link(shake.kind)->name, shake.rank,
                      connected.error().message());
    shake.end.reset();
    return connected;
}

// What link comes of a HELLO that is accepted: that asked for, or the connection itself.
void Connector::answer_link(Handshake& shake) {
    wire::Welcome& welcome = shake.welcome;
    welcome.kind = shake.kind;
    if (!wire::beside(shake.hello.kind)) return;
    const bool ours = std::any_of(usable_.begin(), usable_.end(), [&](const LinkLine* line) {
        return line->kind == shake.hello.kind;
    });
    if (ours && !crowded(shake.hello.kind, true) && make_end(shake, shake.hello.kind) &&
        connect_end(shake, shake.hello.link)) {
        welcome.link = shake.end->address();
    } else {
        shake.kind = wire::LinkKind::tcp;
    }
    welcome.kind = shake.kind;
}

void Connector::doubt_shm(Peer& peer, bool absent) {
    if (!absent || peer.absences >= absences_to_doubt) peer.shm_failed = config_.use_tcp;
}

void Connector::attempt_failed(Peer& peer, wire::LinkKind kind, const char* why, bool absent) {
    peer.failures++;
    // The next time by another way. The one that a link came of is tried first ever after.
    if (kind != wire::LinkKind::shm) peer.way++;
    if (absent) {
        peer.absences++;
        peer.backoff = std::max(peer.backoff, std::min(absent_pause_us, config_.retry_max_us));
    }
    ghost::log::debug("kernet: attempt {} to reach rank {} failed: {}", peer.failures,
                      peer.shared->rank, why);
    // Another address of the same peer is tried at once, the same one again later.
    const bool more = peer.failures < peer.where.tcp.size() + (peer.shm_failed ? 1 : 0);
    need_link(peer, more ? 0 : peer.backoff);
    if (!more) peer.backoff = std::min(peer.backoff * 2, config_.retry_max_us);
}

bool Connector::send_hello(Handshake& shake) {
    const int error = net::connect_error(shake.fd);
    shake.absent = error == ECONNREFUSED;
    if (error != 0 || (shake.kind == wire::LinkKind::shm && !net::same_user(shake.fd))) {
        return false;
    }
    Peer& to = peer(shake.rank);
    if (const wire::LinkKind wanted = shake.kind; wire::beside(wanted)) {
        const Status made = make_end(shake, wanted);
        if (!made && made.error().code == ghost::Code::peer_lost) return false;
        // (one that is measured to be the best is not asked for again and again)
        if (!made && measured_ && !shake.is_trial()) to.failed_links |= bit(wanted);
    }
    if (shake.is_trial() && !shake.end) {
        trial_failed(shake, "it cannot be had here", false);
        return false;
    }
    if (shake.end) shake.hello.link = shake.end->address();
    shake.hello.kind = shake.kind;
    shake.hello.from = config_.rank;
    shake.hello.to = shake.rank;
    shake.hello.epoch = location_.epoch;
    shake.hello.generation = std::max(to.up, to.floor) + 1;
    shake.hello.last_seen = to.shared->received.load(std::memory_order_acquire);
    shake.hello.filters = filters_;
    shake.hello.nonce = wire::random_nonce();
    wire::seal(shake.hello, key_);
    shake.step = Handshake::Step::want_welcome;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = shake.id;
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, shake.fd.get(), &event);
    return send_all(shake.fd, &shake.hello, sizeof shake.hello);
}

bool Connector::on_welcome(Handshake& shake) {
    if (const char* wrong = wire::check(shake.welcome, shake.hello, key_)) {
        refusals_.write(ghost::log::Level::warning,
                        fmt::format("kernet: answer of rank {} refused: {}", shake.rank, wrong));
        return false;
    }
    Peer& from = peer(shake.rank);
    switch (shake.welcome.verdict) {
        case wire::Verdict::accept:
            if (shake.welcome.filters != filters_) {
                tell_of_filters(from);
                return false;
            }
            if (shake.welcome.epoch < from.epoch) return false;  // a copy that should be gone
            return confirm(shake, from);
        case wire::Verdict::stale_generation:
            from.floor = std::max(from.floor, shake.welcome.generation);
            from.outgoing = 0;
            need_link(from, 0);
            return false;
        case wire::Verdict::crossing:
            from.outgoing = 0;
            need_link(from, crossing_delay_us);
            return false;
        case wire::Verdict::other_filters:
            tell_of_filters(from);
            break;
        case wire::Verdict::stale_epoch:
        case wire::Verdict::refused:
            break;
    }
    return false;
}

void Connector::tell_of_filters(Peer& from) {
    if (std::exchange(from.filters_told, true)) return;
    ghost::log::error(
        "kernet: no link with rank {}: its messages go through other filters than \"{}\", this "
        "rank's; all ranks of a job need the same (--mca ghost_filters) and the same version of "
        "them",
        from.shared->rank, config_.filters.empty() ? "none" : config_.filters);
}

bool Connector::confirm(Handshake& shake, Peer& from) {
    shake.kind = shake.welcome.kind;
    if (shake.kind == wire::LinkKind::tcp) {
        shake.end.reset();
        if (measured_) from.failed_links |= bit(shake.hello.kind);  // the other end will not
    } else if (shake.end) {
        const Status connected = connect_end(shake, shake.welcome.link);
        // (an end that is gone again is no reason to think ill of the link)
        if (!connected && connected.error().code != ghost::Code::peer_lost) {
            link_failed(from, shake.kind);
        }
        if (!connected) return false;
    }
    if (!shake.end && !make_end(shake, shake.kind)) return false;
    wire::seal(shake.confirm, shake.hello, shake.welcome, key_);
    const auto given = shake.end->give();
    if (!given) {
        ghost::log::warning("kernet: {}", given.error().message());
        from.shm_failed = config_.use_tcp;
        return false;
    }
    const bool told =
        *given < 0 ? send_all(shake.fd, &shake.confirm, sizeof shake.confirm)
                   : net::send_with_fd(shake.fd, &shake.confirm, sizeof shake.confirm, *given).ok();
    if (!told) return false;
    established(shake, from, shake.welcome.last_seen, shake.welcome.epoch);
    return true;
}

// --- the peers' attempts ---

void Connector::accept_all(int listener, wire::LinkKind kind) {
    const int64_t now = ghost::monotonic_us();
    for (int i = 0; i < accepted_at_once; i++) {
        auto came = door(kind).accept(listener, now);
        if (!came) return;
        if (kind == wire::LinkKind::shm && !net::same_user(came->fd)) continue;
        auto shake = std::make_unique<Handshake>();
        shake->fd = std::move(came->fd);
        shake->kind = shake->came_by = kind;
        shake->deadline = now + config_.connect_timeout_us;
        const uint64_t id = shake->id = next_id_++;
        if (const auto out = door(kind).enter(id, came->from, now)) end_handshake(*out);
        add(id, shake->fd.get(), EPOLLIN);
        handshakes_.emplace(id, std::move(shake));
        handshake_event(id, 0);  // who spoke at once is done with at once
    }
}

// Nobody says the same HELLO twice: its nonce is drawn anew. Those of before the last link are
// known by their generation.
bool Connector::is_recording(Peer& from, const wire::Hello& hello) {
    uint64_t mark = 0;
    std::memcpy(&mark, hello.mac.data(), sizeof mark);
    if (std::find(from.hellos.begin(), from.hellos.end(), mark) != from.hellos.end()) return true;
    if (from.hellos.size() >= most_hellos) from.hellos.erase(from.hellos.begin());
    from.hellos.push_back(mark);
    return false;
}

wire::Verdict Connector::judge(const Peer& from, const wire::Hello& hello) const {
    if (hello.filters != filters_) return wire::Verdict::other_filters;
    if (hello.epoch < from.epoch) return wire::Verdict::stale_epoch;
    if (hello.generation <= from.up) return wire::Verdict::stale_generation;
    // Two attempts at once: that of the side that moved wins, else that of the lower rank.
    if (from.outgoing && hello.epoch == from.epoch && config_.rank < hello.from) {
        return wire::Verdict::crossing;
    }
    return wire::Verdict::accept;
}

bool Connector::on_hello(Handshake& shake) {
    const wire::Hello& hello = shake.hello;
    const char* wrong = wire::check(hello, key_);
    if (!wrong && hello.to != config_.rank) wrong = "meant for another rank";
    const bool both_shm = hello.kind == shake.kind && shake.kind == wire::LinkKind::shm;
    if (!wrong && !both_shm &&
        (hello.kind == wire::LinkKind::shm || shake.kind == wire::LinkKind::shm)) {
        wrong = "wrong kind of link";
    }
    if (wrong) {
        refusals_.write(ghost::log::Level::warning,
                        fmt::format("kernet: connection refused: {}", wrong));
        return false;
    }
    if (shake.is_trial()) return on_trial_hello(shake);
    Peer& from = peer(hello.from);
    wire::Welcome& welcome = shake.welcome;
    welcome.verdict = judge(from, hello);
    welcome.epoch = location_.epoch;
    welcome.generation = from.up;
    welcome.last_seen = from.shared->received.load(std::memory_order_acquire);
    welcome.filters = filters_;
    welcome.nonce = wire::random_nonce();
    shake.rank = hello.from;
    if (welcome.verdict == wire::Verdict::accept) {
        if (is_recording(from, hello)) return false;
        answer_link(shake);
    }
    wire::seal(welcome, hello, key_);
    if (welcome.verdict == wire::Verdict::other_filters) tell_of_filters(from);
    if (!send_all(shake.fd, &welcome, sizeof welcome)) return false;
    if (welcome.verdict != wire::Verdict::accept) return false;
    // Other attempts go on until one of them is proved to be none that was recorded.
    door(shake.came_by).spoke(shake.id);
    from.incoming = shake.id;
    shake.has_peer = true;
    shake.step = Handshake::Step::want_confirm;
    return true;
}

bool Connector::on_confirm(Handshake& shake) {
    const char* wrong = wire::check(shake.confirm, shake.hello, shake.welcome, key_);
    if (wrong) {
        refusals_.write(
            ghost::log::Level::warning,
            fmt::format("kernet: connection of rank {} refused: {}", shake.rank, wrong));
        return false;
    }
    if (!shake.end && !make_end(shake, shake.kind)) return false;
    if (const Status taken = shake.end->take(std::move(shake.given)); !taken) {
        ghost::log::warning("kernet: {}", taken.error().message());
        return false;
    }
    established(shake, peer(shake.rank), shake.hello.last_seen, shake.hello.epoch);
    return true;
}

// --- both ---

void Connector::established(Handshake& shake, Peer& with, uint64_t last_seen, uint64_t epoch) {
    auto offer = std::make_unique<LinkHandoff>();
    offer->peer = with.shared;
    offer->generation = with.up = shake.hello.generation;
    offer->peer_last_seen = last_seen;
    // Not before: a HELLO alone, which may be a recorded one, would shut out the true peer.
    with.epoch = std::max(with.epoch, epoch);
    with.hellos.clear();
    end_others(shake, with);
    const bool again = std::exchange(with.had_link, true);
    with.replaces = false;
    with.failures = with.absences = 0;
    with.backoff = config_.retry_min_us;
    stop_watching(with);
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, shake.fd.get(), nullptr);
    with.kind = shake.kind;
    offer->link = shake.end->finish(terms(shake, epoch));
    if (shake.fd) {  // what the link has not taken
        with.watch_fd = std::move(shake.fd);
        with.watch = next_id_++;
        watches_[with.watch] = shake.rank;
        add(with.watch, with.watch_fd.get(), EPOLLIN | EPOLLRDHUP);
    }
    ghost::log::debug("kernet: link {} number {} with rank {} made by {}", offer->link->name(),
                      offer->generation, shake.rank, shake.incoming ? "the peer" : "us");
    change(with, LinkState::up);
    // Whoever makes a link looks whether there is a better one, when the first messages have gone.
    with.examine_at = 0;
    if (measured_) {
        const std::string before = std::exchange(with.nodes, between(with));
        with.same_nodes = with.nodes == before;
    }
    if (measured_ && !shake.incoming && shake.kind != wire::LinkKind::shm) {
        with.examine_at = ghost::monotonic_us() + (again ? settling_again_us : settling_us);
    }
    registry_.offers.put(std::move(offer));
    // A rank that is in MPI takes the link itself, and sooner.
    push_every_ = push_first_us;
    push_at_ = ghost::monotonic_us() + push_every_;
    if (look_at_ == 0) looked();
}

// All other attempts to make a link with that peer, ours too.
void Connector::end_others(const Handshake& shake, Peer& with) {
    if (with.outgoing != shake.id) end_handshake(std::exchange(with.outgoing, 0));
    std::vector<uint64_t> others;
    for (const auto& [id, other] : handshakes_) {
        if (id != shake.id && other->incoming && other->has_peer && other->rank == shake.rank) {
            others.push_back(id);
        }
    }
    for (uint64_t id : others) end_handshake(id);
}

LinkTerms Connector::terms(const Handshake& shake, uint64_t peer_epoch) const {
    LinkTerms out{location_.epoch, peer_epoch, {}};
    if (!shake.end->driver()) return out;
    out.keys = {packet_key(shake, !shake.incoming, location_.epoch),
                packet_key(shake, shake.incoming, peer_epoch)};
    return out;
}

wire::PacketKey Connector::packet_key(const Handshake& shake, bool from_initiator,
                                      uint64_t epoch) const {
    const wire::LinkMarks marks =
        wire::link_marks(shake.hello, shake.welcome.nonce, from_initiator, key_);
    return {marks.token, marks.seed, static_cast<uint32_t>(epoch)};
}

void Connector::handshake_event(uint64_t id, uint32_t) {
    auto found = handshakes_.find(id);
    if (found == handshakes_.end()) return;
    Handshake& shake = *found->second;
    if (!step(shake)) end_handshake(id);
}

// False: the handshake is over, one way or the other.
bool Connector::step(Handshake& shake) {
    using Step = Handshake::Step;
    bool complete = false;
    switch (shake.step) {
        case Step::connecting:
            return send_hello(shake);
        case Step::want_welcome:
            if (!read_message(shake, &shake.welcome, sizeof shake.welcome, complete)) return false;
            if (!complete) return true;
            if (shake.is_trial()) return on_trial_welcome(shake);
            on_welcome(shake);
            return false;
        case Step::want_hello:
            if (!read_message(shake, &shake.hello, sizeof shake.hello, complete)) return false;
            return !complete || on_hello(shake);
        case Step::want_confirm:
            if (!read_message(shake, &shake.confirm, sizeof shake.confirm, complete)) return false;
            if (!complete) return true;
            if (shake.is_trial()) return begin_measuring(shake);
            on_confirm(shake);
            return false;
        case Step::measuring:
            return measure(shake);
    }
    return false;
}

// Reads no byte more than the message has: what follows belongs to the data side.
bool Connector::read_message(Handshake& shake, void* message, size_t size, bool& complete) {
    auto* bytes = static_cast<uint8_t*>(message);
    const ssize_t got =
        net::receive_with_fd(shake.fd, bytes + shake.have, size - shake.have, shake.given);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got <= 0) return false;
    shake.have += static_cast<size_t>(got);
    complete = shake.have == size;
    if (complete) shake.have = 0;
    return true;
}

// Closes it; an attempt of ours that did not make a link is repeated.
void Connector::end_handshake(uint64_t id) {
    auto found = handshakes_.find(id);
    if (found == handshakes_.end()) return;
    const std::unique_ptr<Handshake> shake = std::move(found->second);
    handshakes_.erase(found);
    if (shake->incoming) door(shake->came_by).leave(id);
    if (shake->is_trial()) return trial_over(*shake);
    if (!shake->has_peer) return;
    Peer& with = peer(shake->rank);
    if (shake->incoming) {
        if (with.incoming == id) with.incoming = 0;
        return;
    }
    if (with.outgoing != id) return;  // given up on purpose
    with.outgoing = 0;
    if (with.state != LinkState::trying) return;
    if (shake->kind == wire::LinkKind::shm && with.failures > with.absences)
        doubt_shm(with, shake->absent);
    attempt_failed(with, shake->kind, shake->absent ? "nobody listens" : "no link came of it",
                   shake->absent);
}

}  // namespace kernet
