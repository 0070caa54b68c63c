// SPDX-License-Identifier: BSD-3-Clause
// The connector's trials: links between nodes are measured (link/trial.hpp) beside the link that is
// in use, and another one is made if it is better.
//
// The first link between two nodes is the connection itself, so that no message waits for a trial.
// Whoever made it asks, when it has settled, over a connection of its own; the other end answers,
// and is told what comes of it. Trials take the control side's thread for `at_once_us` at a time at
// most and never touch the data side: what it gets is a new link, as after a cut.
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "kernet-btl/transport/connector_internal.hpp"

namespace kernet {

namespace {

constexpr int64_t again_us = 5'000;        // between two attempts at a trial
constexpr int64_t crowded_us = 2'000'000;  // until somebody may have left
constexpr int64_t spin_us = 300;           // so long an answer is waited for before we sleep
constexpr int64_t at_once_us = 2'000;      // then others may have the control side
constexpr int64_t doubts_cost = 100;       // one part in so many of the time goes to doubts at most

}  // namespace

std::string Connector::between(const Peer& peer) const {
    return fmt::format("{} and {}", location_.node_name, peer.where.node_name);
}

// Is the link the one measured to be the best? Else measure, or change it.
void Connector::examine(Peer& peer) {
    const int64_t now = ghost::monotonic_us();
    const std::string nodes = between(peer);
    peer.examine_at = now + again_us;
    if (asking_ || answering_) {
        if (!choices_.fresh(nodes, now)) return;  // another trial is in the way
    } else if (const auto candidate = choices_.next(nodes, now)) {
        const int64_t affordable_at = begun_at_ + doubts_us_ * doubts_cost;
        if (choices_.doubted(nodes) && affordable_at > now) {
            peer.examine_at = affordable_at;
            return;
        }
        if (!crowded(*candidate, false)) return begin_trial(peer, *candidate);
        peer.examine_at = now + crowded_us;
        return;
    }
    const wire::LinkKind best = choose(peer);
    if (best != peer.kind && crowded(best, false)) {
        peer.examine_at = now + crowded_us;
        return;
    }
    peer.examine_at = choices_.doubt_at(nodes);
    if (best == peer.kind) return;
    ghost::log::debug("kernet: another link with rank {}: that measured to be the best",
                      peer.shared->rank);
    need_link(peer, 0);
    peer.replaces = true;
}

bool Connector::crowded(wire::LinkKind kind, bool by_peer) const {
    const LinkLine* line = find_link(kind);
    return measured_ && line && line->crowded && line->crowded(by_peer);
}

void Connector::begin_trial(Peer& peer, wire::LinkKind kind) {
    auto shake = std::make_unique<Handshake>();
    shake->incoming = false;
    shake->rank = peer.shared->rank;
    shake->kind = kind;
    shake->hello.purpose = wire::Purpose::trial;
    if (peer.ways.empty()) find_ways(peer);
    if (peer.ways.empty()) return trial_failed(*shake, "no address is known", true);
    const TcpAddress& address = peer.ways[peer.way % peer.ways.size()];
    auto fd = net::connect_tcp(address.host, address.port, tuning());
    if (!fd) return trial_failed(*shake, "no connection", true);
    shake->fd = std::move(*fd);
    shake->step = Handshake::Step::connecting;
    shake->deadline = ghost::monotonic_us() + config_.connect_timeout_us;
    shake->id = asking_ = next_id_++;
    asked_at_ = ghost::monotonic_us();
    add(shake->id, shake->fd.get(), EPOLLOUT);
    handshakes_.emplace(shake->id, std::move(shake));
}

void Connector::trial_failed(const Handshake& shake, const char* why, bool again) {
    choices_.failed(between(peer(shake.rank)), why, again, ghost::monotonic_us());
}

// Trials of ours and of others do not go on at once: they would measure each other.
bool Connector::on_trial_hello(Handshake& shake) {
    const wire::Hello& hello = shake.hello;
    wire::Welcome& welcome = shake.welcome;
    shake.rank = hello.from;
    welcome.epoch = location_.epoch;
    welcome.filters = filters_;
    welcome.nonce = wire::random_nonce();
    Peer& from = peer(hello.from);
    // (one older than the link is a recording, or its trial is of no use any more)
    welcome.verdict = hello.epoch < from.epoch ? wire::Verdict::stale_epoch
                      : asking_ || answering_ || hello.generation <= from.up
                          ? wire::Verdict::crossing
                          : wire::Verdict::accept;
    if (welcome.verdict == wire::Verdict::accept && is_recording(from, hello)) return false;
    if (welcome.verdict == wire::Verdict::accept) {
        answer_link(shake);
        if (!shake.end) welcome.verdict = wire::Verdict::refused;
    }
    wire::seal(welcome, hello, key_);
    const bool told = ::send(shake.fd.get(), &welcome, sizeof welcome,
                             MSG_DONTWAIT | MSG_NOSIGNAL) == ssize_t{sizeof welcome};
    if (!told || welcome.verdict != wire::Verdict::accept) return false;
    answering_ = shake.id;
    door(shake.came_by).spoke(shake.id);
    shake.step = Handshake::Step::want_confirm;
    return true;
}

bool Connector::on_trial_welcome(Handshake& shake) {
    if (wire::check(shake.welcome, shake.hello, key_)) return false;
    if (shake.welcome.verdict == wire::Verdict::refused) {
        shake.tried = true;
        trial_failed(shake, "the other end will not", false);
        return false;
    }
    // (whoever is busy will not be for long)
    shake.tried = shake.welcome.verdict == wire::Verdict::crossing;
    if (shake.welcome.verdict != wire::Verdict::accept) return false;
    if (shake.welcome.kind != shake.kind || !connect_end(shake, shake.welcome.link)) {
        return false;
    }
    wire::seal(shake.confirm, shake.hello, shake.welcome, key_);
    const bool told = ::send(shake.fd.get(), &shake.confirm, sizeof shake.confirm,
                             MSG_DONTWAIT | MSG_NOSIGNAL) == ssize_t{sizeof shake.confirm};
    return told && begin_measuring(shake);
}

bool Connector::begin_measuring(Handshake& shake) {
    if (shake.incoming && wire::check(shake.confirm, shake.hello, shake.welcome, key_)) {
        return false;
    }
    if (shake.incoming) door(shake.came_by).leave(shake.id);
    PacketDriver& driver = *shake.end->driver();
    const uint64_t theirs = shake.incoming ? shake.hello.epoch : shake.welcome.epoch;
    // What is long goes by the connection in a pair, whatever packets can do.
    const auto role = shake.incoming             ? Trial::Role::answers
                      : wire::paired(shake.kind) ? Trial::Role::asks
                                                 : Trial::Role::asks_long_too;
    shake.trial = std::make_unique<Trial>(shake.fd, driver, terms(shake, theirs).keys, role);
    shake.step = Handshake::Step::measuring;
    if (driver.fd() >= 0) add(shake.id, driver.fd(), EPOLLIN);
    return measure(shake);
}

// Answers are waited for without sleep, as ranks in MPI wait for messages: with it, the time to
// wake up would be most of what is measured.
bool Connector::measure(Handshake& shake) {
    const int64_t begun = ghost::monotonic_us();
    int64_t moved_at = begun;
    auto state = Trial::State::going;
    for (int64_t now = begun; now - moved_at < spin_us && now - begun < at_once_us;
         now = ghost::monotonic_us()) {
        state = shake.trial->step();
        if (state != Trial::State::going) break;
        if (shake.trial->moved()) {
            moved_at = now;
        } else {
            sched_yield();  // whoever is to answer may need this processor
        }
    }
    if (state == Trial::State::going) return true;
    if (state == Trial::State::broken) return false;
    shake.tried = true;
    Peer& with = peer(shake.rank);
    const int64_t now = ghost::monotonic_us();
    if (shake.incoming) {
        if (measured_ && with.known) {
            choices_.told(between(with), shake.trial->told(), now);
        }
        return false;
    }
    const TrialFigures figures = shake.trial->figures();
    choices_.tried(between(with), figures,
                   config_.judge ? config_.judge(shake.kind, figures) : figures.ratio(), now);
    if (!choices_.next(between(with), now)) shake.trial->tell(choices_.kind(between(with)));
    return false;
}

void Connector::trial_over(const Handshake& shake) {
    if (shake.id == answering_) answering_ = 0;
    if (shake.incoming || shake.id != asking_) return;
    asking_ = 0;
    const int64_t now = ghost::monotonic_us();
    if (choices_.doubted(between(peer(shake.rank)))) doubts_us_ += now - asked_at_;
    if (!shake.tried) trial_failed(shake, "no trial came of it", true);
    Peer& with = peer(shake.rank);
    if (with.examine_at == 0) return;  // the link has gone meanwhile
    // One of those that were in each other's way is to be first the next time.
    with.examine_at = shake.trial && shake.tried ? now : now + again_us + config_.rank % 16 * 1'000;
}

}  // namespace kernet
