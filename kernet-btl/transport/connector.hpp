// SPDX-License-Identifier: BSD-3-Clause
// The control side: listeners, connections, handshakes, retries, and what is known of the peers.
//
// Called by one thread at a time (the endpoint's mutex). Makes links and gives them to the data
// side through the registry's mailbox. Never blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.hpp"
#include "base/addresses.hpp"
#include "base/doorway.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "kernet-btl/transport/choice.hpp"
#include "kernet-btl/transport/endpoint.hpp"
#include "kernet-btl/transport/registry.hpp"
#include "kernet-btl/link/net.hpp"
#include "kernet-btl/link/table.hpp"
#include "kernet-btl/wire/handshake.hpp"

namespace kernet {

using ghost::Fd;

// The link to one peer, as the control side sees it.
enum class LinkState : uint8_t {
    idle,      // no link, none needed
    waiting,   // one is needed; next attempt at retry_at
    trying,    // an attempt of ours is in progress
    up,        // given to the data side
    away,      // the peer is suspended and will come back by itself
    departed,  // the peer unattached for good
};

class Connector {
  public:
    // filters: digest of the streams' filters, which both ends of a link must have alike.
    Connector(const EndpointConfig& config, Registry& registry, const wire::HandshakeKey& key,
              uint64_t filters);
    ~Connector();

    // Listeners, epoll, timer, bell at the given place. Nothing is left open on an error.
    Status open(int node, const std::string& node_name, uint64_t epoch);
    // Closes all of it and every handshake; tells peers with a ring (left: for good).
    void close(bool left);
    bool is_open() const { return epoll_.valid(); }
    // While it is closed.
    Status begin_life(const std::string& life);

    int fd() const { return epoll_.get(); }
    const Location& location() const { return location_; }
    // Ranks to ask the node agent about are appended to `unknown`.
    void service(std::vector<uint32_t>& unknown);
    void set_location(const Location& location);
    // Is it time to send on behalf of the data side? New links are followed by a look, and looks
    // that find something waiting by rarer ones.
    bool push_due() const {
        return is_open() && push_at_ != 0 && push_at_ <= ghost::monotonic_us();
    }
    void pushed(bool something_waits, bool moved);
    // Is it time to look whether the nodes at the other end of links `tcp` still answer?
    bool look_due() const {
        return is_open() && look_at_ != 0 && look_at_ <= ghost::monotonic_us();
    }
    void looked();
    // All peers there was a link with get one again, now.
    void reconnect_all();

  private:
    struct Handshake;
    struct Peer {
        PeerShared* shared = nullptr;
        LinkState state = LinkState::idle;
        bool known = false;  // `where` is valid
        Location where;
        std::vector<TcpAddress> ways;  // of `where`, best first; empty: not thought of yet
        size_t way = 0;                // that to be tried next, counting on beyond the end
        uint64_t epoch = 0;            // latest placement seen, by location or handshake
        uint64_t up = 0;               // generation of the last link made
        uint64_t floor = 0;            // generation the peer said it has
        bool had_link = false;
        bool shm_failed = false;                    // at this location
        uint32_t failed_links = 0;                  // the same, other kinds: a bit for each
        wire::LinkKind kind = wire::LinkKind::tcp;  // of the last link made
        std::string nodes;          // between which the last link was made; where it is measured
        bool same_nodes = false;    // the one before was, too
        bool replaces = false;      // there is a link, and a better one is to take its place
        bool filters_told = false;  // that it has others
        uint32_t failures = 0;      // in a row
        uint32_t absences = 0;      // of these: nobody listened
        int64_t retry_at = 0;
        int64_t backoff = 0;
        int64_t asked_at = 0;          // when the node agent was last asked
        int64_t examine_at = 0;        // when to look whether the link is the best one; 0: it is
        uint64_t outgoing = 0;         // handshake ids; 0: none
        uint64_t incoming = 0;         // the latest one; there may be others that are recordings
        std::vector<uint64_t> hellos;  // accepted since the last link, by part of their MACs
        uint64_t watch = 0;            // id of the connection beside a ring or packets
        Fd watch_fd;
    };

    Peer& peer(uint32_t rank);
    bool change(Peer& peer, LinkState to);
    bool same_node(const Peer& peer) const;
    void take_requests();
    void take_request(Peer& peer, uint32_t requests);
    void need_link(Peer& peer, int64_t delay_us);
    void depart(Peer& peer);
    void run_timers(std::vector<uint32_t>& unknown);
    void begin_pushing();
    void arm_timer();
    void add(uint64_t id, int fd, uint32_t events);
    void watch_event(Peer& peer);
    void stop_watching(Peer& peer);
    Status open_listeners();
    net::TcpTuning tuning() const { return {config_.tcp_congestion, config_.dead_after_us}; }
    void find_usable();
    void link_failed(Peer& peer, wire::LinkKind kind);
    static uint32_t bit(wire::LinkKind kind) { return 1U << static_cast<unsigned>(kind); }

    // connector_handshake.cpp
    void begin_attempt(Peer& peer, std::vector<uint32_t>& unknown);
    Result<Fd> begin_connection(Peer& peer, wire::LinkKind& kind);
    void find_ways(Peer& peer) const;
    wire::LinkKind choose(const Peer& peer) const;
    Status make_end(Handshake& shake, wire::LinkKind kind);
    Status connect_end(Handshake& shake, const wire::LinkAddress& to);
    void answer_link(Handshake& shake);
    LinkTerms terms(const Handshake& shake, uint64_t peer_epoch) const;
    // absent: nobody listened, or nobody had time to.
    void attempt_failed(Peer& peer, wire::LinkKind kind, const char* why, bool absent);
    void doubt_shm(Peer& peer, bool absent);
    void accept_all(int listener, wire::LinkKind kind);
    void watch_listeners();
    bool is_recording(Peer& from, const wire::Hello& hello);
    void end_others(const Handshake& shake, Peer& with);
    ghost::Doorway& door(wire::LinkKind kind) {
        return kind == wire::LinkKind::shm ? unix_door_ : tcp_door_;
    }
    void handshake_event(uint64_t id, uint32_t events);
    bool read_message(Handshake& shake, void* message, size_t size, bool& complete);
    bool step(Handshake& shake);
    bool send_hello(Handshake& shake);
    bool on_hello(Handshake& shake);
    wire::Verdict judge(const Peer& peer, const wire::Hello& hello) const;
    bool on_welcome(Handshake& shake);
    void tell_of_filters(Peer& peer);
    bool confirm(Handshake& shake, Peer& peer);
    bool on_confirm(Handshake& shake);
    void established(Handshake& shake, Peer& peer, uint64_t last_seen, uint64_t epoch);
    void end_handshake(uint64_t id);
    wire::PacketKey packet_key(const Handshake& shake, bool from_initiator, uint64_t epoch) const;

    // connector_trial.cpp
    std::string between(const Peer& peer) const;
    void examine(Peer& peer);
    bool crowded(wire::LinkKind kind, bool by_peer) const;
    void begin_trial(Peer& peer, wire::LinkKind kind);
    bool on_trial_hello(Handshake& shake);
    bool on_trial_welcome(Handshake& shake);
    bool begin_measuring(Handshake& shake);
    bool measure(Handshake& shake);
    void trial_over(const Handshake& shake);
    void trial_failed(const Handshake& shake, const char* why, bool again);

    EndpointConfig config_;
    Registry& registry_;
    wire::HandshakeKey key_;
    uint64_t filters_;
    Location location_;
    std::vector<ghost::OwnAddress> own_;   // those listened at
    std::vector<const LinkLine*> usable_;  // of the links preferred, those that can be had here
    bool measured_ = false;                // the best of them, else the first
    LinkChoices choices_;
    uint64_t asking_ = 0, answering_ = 0;  // ids of trials; one at a time, they disturb each other
    int64_t asked_at_ = 0;                 // when the trial of ours began
    int64_t doubts_us_ = 0;                // that trials took of choices that were doubted
    int64_t begun_at_ = ghost::monotonic_us();
    Fd epoll_, timer_, bell_, unix_listener_;
    std::vector<Fd> tcp_listeners_;
    uint16_t port_ = 0;  // of tcp_listeners_, also of those before they were closed
    ghost::Doorway tcp_door_, unix_door_;
    bool tcp_watched_ = false, unix_watched_ = false;
    ghost::log::Seldom refusals_;  // of connections, whoever repeats them
    std::unordered_map<uint32_t, Peer> peers_;
    std::unordered_map<uint64_t, std::unique_ptr<Handshake>> handshakes_;
    std::unordered_map<uint64_t, uint32_t> watches_;  // id -> rank
    uint64_t next_id_ = 16;                           // below: fixed ids
    int64_t push_at_ = 0;                             // 0: nothing to look after
    int64_t pushed_at_ = 0;
    int64_t push_every_ = 0;
    int64_t look_at_ = 0;  // 0: there is no link to look at
};

}  // namespace kernet
