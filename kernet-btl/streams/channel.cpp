// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/streams/channel.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <deque>
#include <fmt/format.h>
#include <map>
#include <netinet/in.h>
#include <sodium.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/addresses.hpp"
#include "base/clock.hpp"
#include "base/doorway.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "kernet-btl/link/net.hpp"
#include "kernet-btl/wire/channel.hpp"

namespace kernet {

namespace {

using ghost::Code;
using ghost::Fd;
using ghost::make_error;

constexpr int64_t tick_us = 100'000;
constexpr int64_t alive_every_us = 500'000;
constexpr size_t max_waiting = 64 * 1024 * 1024;  // bytes that wait for one node
constexpr int accepted_at_once = 64;              // then others get their turn
constexpr int64_t port_wait_us = 1'000'000;       // for a port of ours that somebody else has
constexpr useconds_t port_look_us = 5'000;
constexpr uint64_t id_timer = 1, id_listener = 2, id_first = 16;

enum class Step : uint8_t { connecting, want_hello, want_answer, up };

// One connection.
struct Wire {
    uint64_t id = 0;
    Fd fd;
    Step step = Step::connecting;
    int node = -1;  // -1: it has not said so yet
    bool dialled = false;
    bool probe = false;     // only to see whether somebody listens there
    bool stranger = false;  // it has connected, and may be a recording
    size_t way = 0;         // which of the node's addresses
    int64_t deadline = 0;
    int64_t heard = 0, said = 0;
    wire::ChannelHello hello;  // who has connected said
    wire::ChannelSeal out, in;
    std::string received, waiting;
    size_t written = 0;            // of `waiting`
    std::deque<uint64_t> unknown;  // numbers sent and not answered
    uint32_t events = 0;
};

}  // namespace

const char* node_state_name(NodeState state) {
    static constexpr const char* names[] = {"unknown", "up", "unreachable", "gone"};
    return names[static_cast<int>(state)];
}

struct TcpChannel::Impl {
    struct Node {
        NodeState state = NodeState::unknown;
        uint64_t wire = 0;    // the connection in use
        uint64_t trying = 0;  // an attempt of ours
        int64_t retry_at = 0;
        size_t way = 0;       // the address to try
        bool proven = false;  // it has been found to be the node's
        bool expelled = false;
    };

    Impl(const TcpChannelConfig& config, ChannelListener& listener, const wire::HandshakeKey& key)
        : config(config),
          listener(listener),
          key(key),
          nodes(config.nodes.size()),
          door({.greeting_us = config.connect_timeout_us}) {}

    Status open(std::vector<Fd> taken);
    Status watch(int fd, uint64_t id);
    void watch_listeners();
    void service();
    void arm(Wire& wire);
    void add(std::unique_ptr<Wire> wire);
    void accept_all();
    void dial(int node, bool probe);
    void event(uint64_t id, uint32_t events);
    void connected(Wire& wire);
    bool read(Wire& wire);
    bool take(Wire& wire);
    bool take_hello(Wire& wire);
    bool is_recording(const wire::ChannelHello& hello) const;
    bool take_frames(Wire& wire);
    bool take_frame(Wire& wire, const wire::ChannelHeader& header, std::string_view payload);
    void begin(Wire& wire);
    bool flush(Wire& wire);
    void put(Wire& wire, wire::ChannelHeader header, std::string_view payload);
    void end(uint64_t id, const char* why, bool refused = false, bool left = false);
    void set(int node, NodeState state);
    void tick();
    bool dials(int node) const { return config.self < node; }
    const std::string& name(int node) const { return config.nodes[static_cast<size_t>(node)].name; }
    Node& at(int node) { return nodes[static_cast<size_t>(node)]; }
    const TcpAddress& address(int node, size_t way) const {
        const NodeAddress& known = config.nodes[static_cast<size_t>(node)];
        return way == 0 ? known.at : known.others[way - 1];
    }
    NodeState refused_by(int node) const;
    void try_next_way(int node);
    void prove_way(const Wire& wire);

    TcpChannelConfig config;
    ChannelListener& listener;
    wire::HandshakeKey key;
    std::vector<Node> nodes;
    Fd epoll, timer;
    std::vector<Fd> listening;
    bool listeners_watched = true;
    uint16_t port = 0;
    std::map<uint64_t, std::unique_ptr<Wire>> wires;
    std::vector<std::unique_ptr<Wire>> ended;  // may still be in use further up the stack
    uint64_t next_id = id_first;
    ghost::Doorway door;
    ghost::log::Seldom refusals;  // of connections, whoever repeats them
};

TcpChannel::TcpChannel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TcpChannel::~TcpChannel() = default;

Result<std::unique_ptr<TcpChannel>> TcpChannel::create(const TcpChannelConfig& config,
                                                       ChannelListener& listener,
                                                       std::vector<ghost::Fd> listening) {
    if (config.self < 0 || config.self >= static_cast<int>(config.nodes.size())) {
        return make_error(Code::invalid, "find this node among the nodes");
    }
    auto key = wire::HandshakeKey::make(config.secret_hex, "channel " + config.cluster);
    if (!key) return key.error();
    std::unique_ptr<TcpChannel> channel(
        new TcpChannel(std::make_unique<Impl>(config, listener, *key)));
    GHOST_TRY(channel->impl_->open(std::move(listening)));
    return channel;
}

int TcpChannel::fd() const {
    return impl_->epoll.get();
}
void TcpChannel::service() {
    impl_->service();
}
NodeState TcpChannel::state(int node) const {
    return node == impl_->config.self ? NodeState::up : impl_->at(node).state;
}
uint16_t TcpChannel::port() const {
    return impl_->port;
}

// --- opening ---

namespace {

// The port may be somebody's who has connected to it when nobody listened there, for a moment.
bool bind_soon(const Fd& fd, const sockaddr_storage& address, socklen_t size) {
    const int64_t limit = ghost::monotonic_us() + port_wait_us;
    while (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
        if (errno != EADDRINUSE || ghost::monotonic_us() > limit) return false;
        usleep(port_look_us);
    }
    return true;
}

// A connection to a port nobody listens at meets itself if it was given that very port to come from
// (tcp(7), simultaneous open).
bool has_met_itself(const Fd& fd) {
    const auto ends = net::ends_of(fd);
    return ends && ends->own_size == ends->peer_size &&
           std::memcmp(&ends->own, &ends->peer, ends->own_size) == 0;
}

Result<Fd> listen_at(const TcpAddress& at, const net::TcpTuning& tuning, uint16_t& port) {
    sockaddr_storage address{};
    socklen_t size = sizeof(sockaddr_in);
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
    if (inet_pton(AF_INET, at.host.c_str(), &v4->sin_addr) == 1) {
        address.ss_family = AF_INET;
        v4->sin_port = htons(at.port);
    } else if (inet_pton(AF_INET6, at.host.c_str(), &v6->sin6_addr) == 1) {
        address.ss_family = AF_INET6;
        v6->sin6_port = htons(at.port);
        size = sizeof(sockaddr_in6);
    } else {
        return make_error(Code::invalid, "use as numeric address", at.host);
    }
    Fd fd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return ghost::sys_error("create a socket");
    const int on = 1;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    net::tune_tcp(fd, tuning);
    ghost::accept_only_who_speaks(fd.get());
    const std::string where = fmt::format("{}:{}", at.host, at.port);
    if (!bind_soon(fd, address, size) || listen(fd.get(), net::backlog) != 0 ||
        getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        return ghost::sys_error("listen at", where);
    }
    port = ntohs(address.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
    return fd;
}

// As text; "" if it is not known. IPv4 over a socket of both families is IPv4.
std::string peer_host(const Fd& fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (getpeername(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
    char text[INET6_ADDRSTRLEN] = "";
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    if (address.ss_family == AF_INET) {
        inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr, text,
                  sizeof text);
    } else if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, text, sizeof text);
    } else {
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    }
    return text;
}

}  // namespace

Result<ChannelListening> listen_for_channel(const std::string& include) {
    auto own = ghost::own_addresses(include);
    if (!own) return own.error();
    std::vector<std::string> hosts;
    if (!include.empty()) {
        for (const ghost::OwnAddress& address : *own) hosts.push_back(address.text);
    }
    auto made =
        net::listen_tcp({TcpChannelConfig{}.congestion, TcpChannelConfig{}.silence_us}, hosts);
    if (!made) return made.error();
    ChannelListening listening{std::move(made->fds), {}};
    for (const ghost::OwnAddress& address : *own)
        listening.at.push_back({address.text, made->port});
    return listening;
}

Result<NodeAddress> best_address(const std::string& name, std::vector<TcpAddress> addresses,
                                 const std::string& include) {
    auto own = ghost::own_addresses(include);
    if (!own) return own.error();
    if (addresses.empty()) return make_error(Code::invalid, "find an address of node", name);
    std::vector<std::string> hosts;
    for (const TcpAddress& address : addresses) hosts.push_back(address.host);
    NodeAddress node{name, {}, {}};
    for (size_t at : ghost::by_quality(hosts, *own, false)) node.others.push_back(addresses[at]);
    node.at = node.others.front();
    node.others.erase(node.others.begin());
    return node;
}

Status TcpChannel::Impl::open(std::vector<Fd> taken) {
    listening = std::move(taken);
    if (listening.empty()) {
        auto made = listen_at(config.nodes[static_cast<size_t>(config.self)].at,
                              {config.congestion, config.silence_us}, port);
        if (!made) return made.error();
        listening.push_back(std::move(*made));
    }
    epoll.reset(epoll_create1(EPOLL_CLOEXEC));
    timer.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!epoll || !timer) return ghost::sys_error("open a channel's descriptors");
    itimerspec every{{0, tick_us * 1000}, {0, 1}};
    timerfd_settime(timer.get(), 0, &every, nullptr);
    GHOST_TRY(watch(timer.get(), id_timer));
    for (const Fd& fd : listening) GHOST_TRY(watch(fd.get(), id_listener));
    return {};
}

Status TcpChannel::Impl::watch(int fd, uint64_t id) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = id;
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0) return {};
    return ghost::sys_error("watch a channel's descriptor");
}

// While nobody is let in they stay readable. They are looked at again in the next tick.
void TcpChannel::Impl::watch_listeners() {
    const bool open = door.is_open(ghost::monotonic_us());
    if (open == listeners_watched) return;
    listeners_watched = open;
    epoll_event event{};
    event.events = open ? EPOLLIN : 0u;
    event.data.u64 = id_listener;
    for (const Fd& fd : listening) epoll_ctl(epoll.get(), EPOLL_CTL_MOD, fd.get(), &event);
}

void TcpChannel::Impl::add(std::unique_ptr<Wire> wire) {
    wire->id = next_id++;
    wire->heard = wire->said = ghost::monotonic_us();
    epoll_event event{};
    event.events = wire->events = wire->step == Step::connecting ? EPOLLOUT : EPOLLIN;
    event.data.u64 = wire->id;
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wire->fd.get(), &event);
    wires.emplace(wire->id, std::move(wire));
}

void TcpChannel::Impl::arm(Wire& wire) {
    const uint32_t want = EPOLLIN | (wire.waiting.empty() ? 0u : uint32_t{EPOLLOUT});
    if (want == wire.events) return;
    epoll_event event{};
    event.events = wire.events = want;
    event.data.u64 = wire.id;
    epoll_ctl(epoll.get(), EPOLL_CTL_MOD, wire.fd.get(), &event);
}

void TcpChannel::Impl::accept_all() {
    const int64_t now = ghost::monotonic_us();
    for (const Fd& at : listening) {
        for (int i = 0; i < accepted_at_once; i++) {
            auto came = door.accept(at.get(), now);
            if (!came) break;
            auto wire = std::make_unique<Wire>();
            wire->fd = std::move(came->fd);
            wire->step = Step::want_hello;
            wire->stranger = true;
            if (const auto out = door.enter(next_id, came->from, now)) end(*out, nullptr);
            const uint64_t id = next_id;
            add(std::move(wire));
            event(id, EPOLLIN);  // who spoke at once is done with at once
        }
    }
}

// The node with the lower number connects. The other one only looks whether anybody listens, which
// is how it tells a manager that has ended from one that is out of reach.
void TcpChannel::Impl::dial(int node, bool probe) {
    const TcpAddress& to = address(node, at(node).way);
    auto fd = net::connect_tcp(to.host, to.port, {config.congestion, config.silence_us});
    at(node).retry_at = ghost::monotonic_us() + config.retry_us;
    if (!fd) {
        set(node, fd.error().sys == ECONNREFUSED ? refused_by(node) : NodeState::unreachable);
        return try_next_way(node);
    }
    auto wire = std::make_unique<Wire>();
    wire->fd = std::move(*fd);
    wire->node = node;
    wire->dialled = true;
    wire->probe = probe;
    wire->way = at(node).way;
    wire->deadline = ghost::monotonic_us() + config.connect_timeout_us;
    at(node).trying = next_id;
    add(std::move(wire));
}

// Nobody listens there. That proves its end only if it is its own address for certain: of several,
// some may be another node's as well (bridges are alike everywhere).
NodeState TcpChannel::Impl::refused_by(int node) const {
    const Node& other = nodes[static_cast<size_t>(node)];
    const bool only = config.nodes[static_cast<size_t>(node)].others.empty();
    return only || other.proven ? NodeState::gone : NodeState::unreachable;
}

// An attempt has failed.
void TcpChannel::Impl::try_next_way(int node) {
    Node& other = at(node);
    const size_t ways = config.nodes[static_cast<size_t>(node)].others.size() + 1;
    if (ways == 1 || other.state == NodeState::gone) return;
    other.way = (other.way + 1) % ways;
    other.proven = false;
}

// Where the node has connected from is an address of its own.
void TcpChannel::Impl::prove_way(const Wire& wire) {
    const std::string host = peer_host(wire.fd);
    Node& other = at(wire.node);
    for (size_t way = 0; way <= config.nodes[static_cast<size_t>(wire.node)].others.size(); way++) {
        if (address(wire.node, way).host != host) continue;
        other.way = way;
        other.proven = true;
        return;
    }
}

// --- events ---

void TcpChannel::Impl::service() {
    epoll_event events[64];
    const int count = epoll_wait(epoll.get(), events, 64, 0);
    for (int i = 0; i < count; i++) {
        const uint64_t id = events[i].data.u64;
        if (id == id_timer) {
            uint64_t ignored;
            if (::read(timer.get(), &ignored, sizeof ignored) > 0) tick();
        } else if (id == id_listener) {
            accept_all();
        } else {
            event(id, events[i].events);
        }
    }
    watch_listeners();
    ended.clear();
}

void TcpChannel::Impl::tick() {
    const int64_t now = ghost::monotonic_us();
    std::vector<uint64_t> late = door.late(now);
    for (auto& [id, wire] : wires) {
        if (wire->stranger) continue;
        if (wire->step != Step::up) {
            if (wire->deadline <= now) late.push_back(id);
        } else if (now - wire->heard > config.silence_us) {
            late.push_back(id);
        } else if (now - wire->said > alive_every_us) {
            put(*wire, {}, {});
        }
    }
    for (uint64_t id : late) end(id, "nothing was heard in time");
    for (int node = 0; node < static_cast<int>(nodes.size()); node++) {
        const Node& other = at(node);
        if (node == config.self || other.wire || other.trying || other.retry_at > now ||
            other.expelled) {
            continue;
        }
        dial(node, !dials(node));
    }
}

void TcpChannel::Impl::event(uint64_t id, uint32_t events) {
    const auto found = wires.find(id);
    if (found == wires.end()) return;
    Wire& wire = *found->second;
    if (wire.step == Step::connecting) return connected(wire);
    if (events & EPOLLOUT && !flush(wire)) return end(id, "the connection broke");
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !read(wire)) {
        return end(id, "the connection broke");
    }
}

void TcpChannel::Impl::connected(Wire& wire) {
    int error = net::connect_error(wire.fd);
    if (error == 0 && has_met_itself(wire.fd)) {
        error = ECONNREFUSED;
        const linger at_once{1, 0};  // or its port would be taken for a minute (TIME_WAIT)
        setsockopt(wire.fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    if (error != 0) return end(wire.id, std::strerror(error), error == ECONNREFUSED);
    if (wire.probe) {
        // Somebody listens: it lives, and will connect.
        const int node = wire.node;
        end(wire.id, nullptr);
        if (at(node).state == NodeState::gone) set(node, NodeState::unreachable);
        return;
    }
    wire.hello.from = static_cast<uint32_t>(config.self);
    wire.hello.to = static_cast<uint32_t>(wire.node);
    wire.hello.nonce = wire::random_nonce();
    seal(wire.hello, nullptr, key);
    wire.step = Step::want_answer;
    wire.waiting.assign(reinterpret_cast<const char*>(&wire.hello), sizeof wire.hello);
    if (!flush(wire)) end(wire.id, "the connection broke");
}

bool TcpChannel::Impl::read(Wire& wire) {
    char bytes[64 * 1024];
    const uint64_t id = wire.id;
    for (;;) {
        const ssize_t got = ::recv(wire.fd.get(), bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return true;
        if (got <= 0) return false;
        wire.heard = ghost::monotonic_us();
        wire.received.append(bytes, static_cast<size_t>(got));
        if (!take(wire)) return false;
        if (!wires.count(id)) return true;  // ended meanwhile
    }
}

bool TcpChannel::Impl::take(Wire& wire) {
    if (wire.step != Step::up && !take_hello(wire)) return false;
    return wire.step != Step::up || take_frames(wire);
}

bool TcpChannel::Impl::take_hello(Wire& wire) {
    if (wire.received.size() < sizeof(wire::ChannelHello)) return true;
    wire::ChannelHello hello;
    std::memcpy(static_cast<void*>(&hello), wire.received.data(), sizeof hello);
    wire.received.erase(0, sizeof hello);
    const bool answer = wire.step == Step::want_answer;
    const char* wrong = check(hello, answer ? &wire.hello : nullptr, key);
    const auto self = static_cast<uint32_t>(config.self);
    if (!wrong &&
        (hello.to != self || hello.from >= nodes.size() ||
         (answer ? hello.from != static_cast<uint32_t>(wire.node) : hello.from >= self))) {
        wrong = "not from whom it should be, or for another node";
    }
    if (wrong) {
        refusals.write(ghost::log::Level::warning,
                       fmt::format("channel: connection refused: {}", wrong));
        return false;
    }
    if (!answer && is_recording(hello)) return false;
    if (nodes[hello.from].expelled) return false;  // it may try as long as it lives
    if (answer) {
        wire.out = {wire.hello, hello, key, false};
        wire.in = {wire.hello, hello, key, true};
    } else {
        wire.node = static_cast<int>(hello.from);
        wire.hello = hello;
        door.spoke(wire.id);
        wire::ChannelHello mine;
        mine.answer = 1;
        mine.from = self;
        mine.to = hello.from;
        mine.nonce = wire::random_nonce();
        seal(mine, &hello, key);
        wire.out = {hello, mine, key, true};
        wire.in = {hello, mine, key, false};
        wire.waiting.append(reinterpret_cast<const char*>(&mine), sizeof mine);
    }
    begin(wire);
    return flush(wire);
}

// Somebody has said the same already: its nonce is drawn anew each time. (What was recorded long
// ago waits in vain for a key that makes the first frame.)
bool TcpChannel::Impl::is_recording(const wire::ChannelHello& hello) const {
    return std::any_of(wires.begin(), wires.end(), [&](const auto& item) {
        const Wire& other = *item.second;
        return other.stranger && other.node >= 0 && other.hello.mac == hello.mac;
    });
}

// Who connected proves by its first frame that it is no recording: only then is the node up, and
// its connection that of no stranger.
void TcpChannel::Impl::begin(Wire& wire) {
    wire.step = Step::up;
    Node& node = at(wire.node);
    if (wire.dialled) {
        node.trying = 0;
        node.way = wire.way;
        node.proven = true;
        node.wire = wire.id;
        put(wire, {}, {});
        set(wire.node, NodeState::up);
    }
}

bool TcpChannel::Impl::take_frames(Wire& wire) {
    size_t at_byte = 0;
    bool good = true;
    const uint64_t id = wire.id;
    while (good && wire.received.size() - at_byte >= sizeof(wire::ChannelHeader)) {
        wire::ChannelHeader header;
        std::memcpy(static_cast<void*>(&header), wire.received.data() + at_byte, sizeof header);
        // (the first frame of who connected has nothing in it)
        if (header.length > (wire.stranger ? 0 : max_channel_message)) return false;
        const size_t whole = sizeof header + header.length + wire::channel_mac_size;
        if (wire.received.size() - at_byte < whole) break;
        const char* payload = wire.received.data() + at_byte + sizeof header;
        const auto mac = wire.in.next(header, payload);
        if (sodium_memcmp(mac.data(), payload + header.length, mac.size()) != 0) {
            refusals.write(ghost::log::Level::error,
                           fmt::format("channel: a frame of {} is not authentic", name(wire.node)));
            return false;
        }
        if (std::exchange(wire.stranger, false)) door.leave(wire.id);
        at_byte += whole;
        good = take_frame(wire, header, {payload, header.length});
        if (!wires.count(id)) return true;
    }
    wire.received.erase(0, at_byte);
    return good;
}

bool TcpChannel::Impl::take_frame(Wire& wire, const wire::ChannelHeader& header,
                                  std::string_view payload) {
    Node& node = at(wire.node);
    if (node.wire != wire.id) {  // the first frame of a connection made by the other side
        const uint64_t before = std::exchange(node.wire, wire.id);
        if (before) {
            node.wire = 0;
            end(before, "connected again");
            node.wire = wire.id;
        }
        prove_way(wire);
        set(wire.node, NodeState::up);
    }
    const auto answer = [&](wire::ChannelKind kind) {
        if (header.number == 0) return;
        wire::ChannelHeader reply;
        reply.kind = kind;
        reply.number = header.number;
        put(wire, reply, {});
    };
    switch (header.kind) {
        case wire::ChannelKind::alive:
            return true;
        case wire::ChannelKind::message: {
            const bool taken = listener.message(wire.node, header.channel, header.type, payload);
            answer(taken ? wire::ChannelKind::taken : wire::ChannelKind::refused);
            return true;
        }
        case wire::ChannelKind::taken:
        case wire::ChannelKind::refused: {
            const uint64_t number = header.number;  // which is not aligned there
            const auto known = std::find(wire.unknown.begin(), wire.unknown.end(), number);
            if (known == wire.unknown.end()) return false;
            wire.unknown.erase(known);
            listener.delivered(header.number,
                               header.kind == wire::ChannelKind::taken
                                   ? Status{}
                                   : make_error(Code::refused, "deliver to", name(wire.node),
                                                "nobody takes messages of this channel"));
            return true;
        }
        case wire::ChannelKind::leave:
            end(wire.id, "it leaves", false, true);
            return true;
    }
    return false;
}

// --- sending ---

void TcpChannel::Impl::put(Wire& wire, wire::ChannelHeader header, std::string_view payload) {
    header.length = static_cast<uint32_t>(payload.size());
    const auto mac = wire.out.next(header, payload.data());
    wire.waiting.append(reinterpret_cast<const char*>(&header), sizeof header);
    wire.waiting.append(payload);
    wire.waiting.append(reinterpret_cast<const char*>(mac.data()), mac.size());
    wire.said = ghost::monotonic_us();
    flush(wire);  // a broken connection is found by its event
}

bool TcpChannel::Impl::flush(Wire& wire) {
    while (wire.written < wire.waiting.size()) {
        const ssize_t wrote =
            ::send(wire.fd.get(), wire.waiting.data() + wire.written,
                   wire.waiting.size() - wire.written, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0 && errno != EAGAIN) return false;
        if (wrote < 0) break;
        wire.written += static_cast<size_t>(wrote);
    }
    if (wire.written == wire.waiting.size()) {
        wire.waiting.clear();
        wire.written = 0;
    } else if (wire.written > max_channel_message) {
        wire.waiting.erase(0, std::exchange(wire.written, 0));
    }
    arm(wire);
    return true;
}

Status TcpChannel::send(int node, uint16_t channel, uint16_t type, std::string_view bytes,
                        uint64_t number) {
    Impl& impl = *impl_;
    if (node < 0 || node >= static_cast<int>(impl.nodes.size())) {
        return make_error(Code::not_found, "find node", std::to_string(node));
    }
    const std::string& name = impl.name(node);
    if (bytes.size() > max_channel_message) {
        return make_error(Code::invalid, "send so long a message to", name);
    }
    const auto found = impl.wires.find(impl.at(node).wire);
    if (found == impl.wires.end()) {
        return make_error(Code::peer_lost,
                          fmt::format("reach node ({})", node_state_name(impl.at(node).state)),
                          name);
    }
    Wire& wire = *found->second;
    if (wire.waiting.size() - wire.written > max_waiting) {
        return make_error(Code::busy, "send to", name, "too much waits for it");
    }
    wire::ChannelHeader header;
    header.kind = wire::ChannelKind::message;
    header.channel = channel;
    header.type = type;
    header.number = number;
    if (number) wire.unknown.push_back(number);
    impl.put(wire, header, bytes);
    return {};
}

void TcpChannel::expel(int node) {
    if (node < 0 || node >= static_cast<int>(impl_->nodes.size()) || node == impl_->config.self) {
        return;
    }
    impl_->at(node).expelled = true;
    impl_->end(impl_->at(node).trying, nullptr);
    impl_->end(impl_->at(node).wire, nullptr);
    impl_->set(node, NodeState::gone);
}

void TcpChannel::leave() {
    for (auto& [id, wire] : impl_->wires) {
        if (wire->step != Step::up) continue;
        wire::ChannelHeader header;
        header.kind = wire::ChannelKind::leave;
        impl_->put(*wire, header, {});
    }
}

// --- ends ---

void TcpChannel::Impl::end(uint64_t id, const char* why, bool refused, bool left) {
    const auto found = wires.find(id);
    if (found == wires.end()) return;
    ended.push_back(std::move(found->second));
    Wire& wire = *ended.back();
    wires.erase(found);
    epoll_ctl(epoll.get(), EPOLL_CTL_DEL, wire.fd.get(), nullptr);
    wire.fd.reset();
    if (wire.stranger) door.leave(id);
    if (wire.node < 0) return;
    Node& node = at(wire.node);
    if (why) ghost::log::debug("channel: connection with {} ended: {}", name(wire.node), why);
    if (node.trying == id) node.trying = 0;
    const bool in_use = node.wire == id;
    if (in_use) node.wire = 0;
    for (uint64_t number : std::exchange(wire.unknown, {})) {
        listener.delivered(number,
                           make_error(Code::peer_lost, "deliver a message to", name(wire.node)));
    }
    node.retry_at = ghost::monotonic_us() + (in_use ? 0 : config.retry_us);
    if (left) node.retry_at = ghost::monotonic_us() + 5 * config.retry_us;
    if (!why || node.wire) return;
    set(wire.node, left      ? NodeState::gone
                   : refused ? refused_by(wire.node)
                             : NodeState::unreachable);
    const bool attempt = wire.dialled && !in_use;
    if (attempt && !(refused && node.proven)) try_next_way(wire.node);
}

void TcpChannel::Impl::set(int node, NodeState state) {
    NodeState& known = at(node).state;
    // An attempt that gets no answer does not bring back one that has gone.
    if (known == state ||
        (known == NodeState::gone && state == NodeState::unreachable && at(node).trying != 0)) {
        return;
    }
    ghost::log::info("channel: node {} is {}", name(node), node_state_name(state));
    known = state;
    listener.node_changed(node, state);
}

}  // namespace kernet
