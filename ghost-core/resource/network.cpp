// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/network.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <functional>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <map>
#include <optional>
#include <sodium.h>
#include <string_view>
#include <sys/socket.h>
#include <vector>

#include "base/addresses.hpp"
#include "base/clock.hpp"
#include "base/await.hpp"
#include "base/doorway.hpp"

namespace ghost::core {
namespace {

constexpr int handshake_ms = 3000;
constexpr int backlog = 4096;  // strangers fill it first of all

using Token = std::array<unsigned char, 32>;

void set_int(int fd, int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value);  // all of these are improvements only
}

// Before connect/listen: the receive buffer decides the window scale. Without the right to force
// it, the kernel's own tuning does better than its low fixed limit.
void set_buffers(int fd, const NetworkOptions& options) {
    const int size = static_cast<int>(std::min<size_t>(options.buffer_bytes, INT_MAX / 2));
    set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, size);
    set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, size);
    // Fair to others on a shared network and the same on every node, whatever its default is.
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
}

void set_limits(int fd, int ms) {
    const timeval limit{ms / 1000, ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

void set_liveness(int fd, const NetworkOptions& options) {
    set_limits(fd, options.operation_ms);
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 5);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, options.operation_ms);
}

// errno of a failed send/recv as an Error.
Error lost(const std::string& tried, const std::string& peer) {
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ETIMEDOUT)
        return make_error(Code::timeout, tried, peer);
    if (errno == ECONNRESET || errno == EPIPE) return sys_error(tried, peer, Code::peer_lost);
    return sys_error(tried, peer);
}

Status send_all(int fd, const void* data, size_t size, const std::string& peer) {
    const auto* at = static_cast<const char*>(data);
    while (size > 0) {
        const auto sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return lost("send ghost to", peer);
        at += sent;
        size -= static_cast<size_t>(sent);
    }
    return {};
}

Result<size_t> receive_some(int fd, void* data, size_t size, const std::string& peer) {
    for (;;) {
        const auto got = recv(fd, data, size, 0);
        if (got >= 0) return static_cast<size_t>(got);
        if (errno != EINTR) return lost("receive ghost from", peer);
    }
}

Status receive_all(int fd, void* data, size_t size, const std::string& peer) {
    auto* at = static_cast<char*>(data);
    while (size > 0) {
        auto got = receive_some(fd, at, size, peer);
        if (!got) return got.error();
        if (*got == 0) return make_error(Code::refused, "greet", peer, "it hung up");
        at += *got;
        size -= *got;
    }
    return {};
}

// peer_lost: it has hung up before it said who it is.
Status meet_target(int fd, Greeting& greeting, const std::string& peer) {
    Hello theirs;
    GHOST_TRY(send_all(fd, &greeting.hello(), sizeof(Hello), peer));
    GHOST_TRY(receive_all(fd, &theirs, sizeof theirs, peer));
    if (!greeting.take(theirs)) return make_error(Code::refused, "greet", peer, "no ghost");
    return {};
}

Status prove_as_source(int fd, Greeting& greeting, const std::string& peer) {
    const Proof mine = greeting.proof();
    GHOST_TRY(send_all(fd, mine.data(), mine.size(), peer));
    Proof answer{};
    GHOST_TRY(receive_all(fd, answer.data(), answer.size(), peer));
    if (!greeting.proves(answer) || !greeting.agree())
        return make_error(Code::refused, "greet", peer, "it does not know the job's secret");
    return {};
}

// Who has proved himself: what he sends from now on is the ghost.
struct Source {
    Fd fd;
    std::unique_ptr<Greeting> greeting;
};

// Somebody who has connected to a target, and how far his greeting has come. Nothing waits for him.
class Newcomer {
  public:
    enum class State { going, proven, refused };

    explicit Newcomer(Fd fd) : fd_(std::move(fd)) {}
    int fd() const { return fd_.get(); }
    // His hello was right, though it may be a recording.
    bool has_spoken() const { return greeting_ != nullptr; }
    // What has come of him by now is taken. `make`: a greeting for whoever has said his hello.
    State take(const std::function<std::unique_ptr<Greeting>()>& make);
    // Of one who is proven.
    Source source() &&;

  private:
    State receive(void* message, size_t size);
    bool say(const void* message, size_t size) {
        return send(fd_.get(), message, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
    }

    Fd fd_;
    std::unique_ptr<Greeting> greeting_;  // from his hello on
    size_t have_ = 0;                     // of the message that comes
    Hello theirs_;
    Proof answer_{};
};

// going: more of it has to come. proven: it is there.
Newcomer::State Newcomer::receive(void* message, size_t size) {
    const ssize_t got = recv(fd_.get(), static_cast<char*>(message) + have_, size - have_, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return State::going;
    if (got <= 0) return State::refused;
    have_ += static_cast<size_t>(got);
    if (have_ < size) return State::going;
    have_ = 0;
    return State::proven;
}

Newcomer::State Newcomer::take(const std::function<std::unique_ptr<Greeting>()>& make) {
    if (!greeting_) {
        if (const State came = receive(&theirs_, sizeof theirs_); came != State::proven)
            return came;
        greeting_ = make();
        if (!greeting_->take(theirs_) || !say(&greeting_->hello(), sizeof(Hello)))
            return State::refused;
    }
    if (const State came = receive(answer_.data(), answer_.size()); came != State::proven)
        return came;
    if (!greeting_->proves(answer_) || !greeting_->agree()) return State::refused;
    const Proof mine = greeting_->proof();
    return say(mine.data(), mine.size()) ? State::proven : State::refused;
}

Source Newcomer::source() && {
    fcntl(fd_.get(), F_SETFL, 0);
    return {std::move(fd_), std::move(greeting_)};
}

// All who have come and have not proved themselves; they are greeted at once.
class Reception {
  public:
    Reception(int listener, const std::string& token, const std::string& secret)
        : listener_(listener), token_(token), secret_(secret) {}

    // The first who proves himself. timeout; refused: the listener has been shut down.
    Result<Source> source(int64_t limit);

  private:
    // Until somebody has come or said something.
    bool wait(int64_t limit);
    std::optional<Source> take();
    void let_in();
    void drop(uint64_t id) {
        door_.leave(id);
        newcomers_.erase(id);
    }

    int listener_;
    const std::string &token_, &secret_;
    // One for all of them: only one proves himself, and strangers are to cost nothing.
    const std::shared_ptr<const PassingKey> key_ = std::make_shared<PassingKey>();
    Doorway door_{{.greeting_us = handshake_ms * 1000}};
    std::map<uint64_t, Newcomer> newcomers_;
    uint64_t last_id_ = 0;
    std::vector<pollfd> awaited_;  // the listener, then newcomers as in ids_
    std::vector<uint64_t> ids_;
};

bool Reception::wait(int64_t limit) {
    const int64_t now = monotonic_us(), wakes = door_.wakes_at(now);
    awaited_ = {{listener_, static_cast<short>(door_.is_open(now) ? POLLIN : 0), 0}};
    ids_.clear();
    for (const auto& [id, one] : newcomers_) {
        awaited_.push_back({one.fd(), POLLIN, 0});
        ids_.push_back(id);
    }
    return await_any_until(awaited_, wakes != 0 ? std::min(wakes, limit) : limit);
}

std::optional<Source> Reception::take() {
    const auto greet = [this] {
        return std::make_unique<Greeting>(Side::target, token_, secret_, key_);
    };
    for (size_t i = 0; i < ids_.size(); i++) {
        if (awaited_[i + 1].revents == 0) continue;
        Newcomer& one = newcomers_.at(ids_[i]);
        const auto state = one.take(greet);
        if (state == Newcomer::State::proven) return std::move(one).source();
        if (state == Newcomer::State::refused)
            drop(ids_[i]);
        else if (one.has_spoken())
            door_.spoke(ids_[i]);
    }
    return {};
}

void Reception::let_in() {
    for (uint64_t id : door_.late(monotonic_us())) drop(id);
    while (auto came = door_.accept(listener_, monotonic_us())) {
        const uint64_t id = ++last_id_;
        if (const auto out = door_.enter(id, came->from, monotonic_us())) newcomers_.erase(*out);
        newcomers_.emplace(id, std::move(came->fd));
    }
}

Result<Source> Reception::source(int64_t limit) {
    for (;;) {
        const bool something = wait(limit);
        if (awaited_[0].revents & (POLLHUP | POLLERR | POLLNVAL))
            return make_error(Code::refused, "wait for the ghost's source: it was interrupted");
        if (auto came = take()) return std::move(*came);
        let_in();
        if (!something && monotonic_us() >= limit)
            return make_error(Code::timeout, "wait for the ghost's source");
    }
}

std::string name_of_peer(int fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return "a stranger";
    return fmt::format("{}:{}", host, port);
}

// connect(2) with a time limit, by a non-blocking socket.
Status connect_within(int fd, const sockaddr* address, socklen_t size, int ms,
                      const std::string& peer) {
    const int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    if (::connect(fd, address, size) != 0) {
        if (errno != EINPROGRESS) return sys_error("connect to", peer);
        if (!await_writable(fd, ms)) return make_error(Code::timeout, "connect to", peer);
        int sys = 0;
        socklen_t length = sizeof sys;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &length);
        if (sys != 0) return sys_error_of(sys, "connect to", peer);
    }
    fcntl(fd, F_SETFL, flags);
    return {};
}

Result<Fd> connect_any(const addrinfo* list, const NetworkOptions& options,
                       const std::string& peer) {
    auto error = make_error(Code::not_found, "connect to", peer);
    for (const auto* at = list; at != nullptr; at = at->ai_next) {
        Fd fd(socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (!fd) continue;
        set_buffers(fd.get(), options);
        auto done =
            connect_within(fd.get(), at->ai_addr, at->ai_addrlen, options.operation_ms, peer);
        if (done.ok()) return fd;
        error = done.error();
    }
    return error;
}

Result<Fd> bind_at(int family, const void* address, const NetworkOptions& options) {
    Fd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return sys_error("make socket for ghosts");
    set_buffers(fd.get(), options);
    if (options.port != 0) set_int(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    const auto port = htons(static_cast<uint16_t>(options.port));
    sockaddr_in6 at{};
    socklen_t size = sizeof at;
    if (family == AF_INET6) {
        set_int(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
        at.sin6_family = AF_INET6;
        at.sin6_port = port;
        std::memcpy(&at.sin6_addr, address, sizeof at.sin6_addr);
    } else {
        auto& four = reinterpret_cast<sockaddr_in&>(at);
        size = sizeof four;
        four.sin_family = AF_INET;
        four.sin_port = port;
        std::memcpy(&four.sin_addr, address, sizeof four.sin_addr);
    }
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size) != 0)
        return sys_error("bind socket for ghosts");
    return fd;
}

// At all: a dual-stack socket where there is IPv6, else an IPv4 one.
// Both say by what name or address this end is reached.
Result<Fd> bind_any(const NetworkOptions& options, std::string& host) {
    host = host_name();
    const std::array<uint8_t, 16> any{};
    auto six = bind_at(AF_INET6, any.data(), options);
    return six ? std::move(six) : bind_at(AF_INET, any.data(), options);
}

Result<Fd> bind_chosen(const NetworkOptions& options, std::string& host) {
    auto own = own_addresses(options.interfaces);
    if (!own) return own.error();
    host = own->front().text;
    return bind_at(own->front().family, own->front().bytes.data(), options);
}

}  // namespace

Result<std::unique_ptr<NetworkResource>> NetworkResource::connect(const std::string& host, int port,
                                                                  const std::string& token,
                                                                  const std::string& secret,
                                                                  NetworkOptions options) {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    if (secret.empty()) return make_error(Code::invalid, "connect for a ghost without a secret");
    const auto peer = fmt::format("{}:{}", host, port);
    addrinfo hints{}, *list = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (const int rc = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list))
        return make_error(Code::not_found, "look up", host, gai_strerror(rc));
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(list, &freeaddrinfo);
    const int64_t limit = monotonic_us() + int64_t{handshake_ms} * 1000;
    for (;;) {
        auto fd = connect_any(list, options, peer);
        if (!fd) return fd.error();
        set_limits(fd->get(), handshake_ms);
        Greeting greeting(Side::source, token, secret);
        // Strangers may have crowded it out before a word of it was looked at.
        const auto met = meet_target(fd->get(), greeting, peer);
        if (!met.ok() && met.error().code == Code::peer_lost && monotonic_us() < limit) continue;
        GHOST_TRY(met);
        GHOST_TRY(prove_as_source(fd->get(), greeting, peer));
        set_liveness(fd->get(), options);
        return std::unique_ptr<NetworkResource>(
            new NetworkResource(std::move(*fd), peer, greeting));
    }
}

NetworkResource::NetworkResource(Fd fd, std::string peer, const Greeting& greeting)
    : fd_(std::move(fd)), peer_(std::move(peer)) {
    const bool source = greeting.self() == Side::source;
    out_ = std::make_unique<Seal>(greeting.cipher(), greeting.key_of(greeting.self()),
                                  Seal::Use::close);
    in_ = std::make_unique<Seal>(
        greeting.cipher(), greeting.key_of(source ? Side::target : Side::source), Seal::Use::open);
}

NetworkResource::~NetworkResource() = default;

Status NetworkResource::write(const void* data, size_t size) {
    iovec piece{const_cast<void*>(data), size};
    return write_gather(&piece, 1);
}

// `from` is either the caller's or already where the record's bytes belong.
Status NetworkResource::send_record(const char* from, size_t size, bool last) {
    if (!out_->close(from, size, last, record_.data()))
        return make_error(Code::internal, "seal ghost for", peer_);
    return send_all(fd_.get(), record_.data(), size + Seal::overhead, peer_);
}

// What is long is sealed from where it is, what is short is put together before.
Status NetworkResource::write_gather(iovec* pieces, size_t count) {
    record_.resize(Seal::limit + Seal::overhead);
    size_t held = 0;
    for (size_t i = 0; i < count; i++) {
        const auto* at = static_cast<const char*>(pieces[i].iov_base);
        for (size_t left = pieces[i].iov_len; left > 0;) {
            if (held == 0 && left >= Seal::limit) {
                GHOST_TRY(send_record(at, Seal::limit, false));
                at += Seal::limit;
                left -= Seal::limit;
                continue;
            }
            char* const bytes = record_.data() + Seal::head_bytes;
            const size_t part = std::min(left, Seal::limit - held);
            std::memcpy(bytes + held, at, part);
            held += part;
            at += part;
            left -= part;
            if (held < Seal::limit) continue;
            GHOST_TRY(send_record(bytes, held, false));
            held = 0;
        }
    }
    if (held == 0) return {};
    return send_record(record_.data() + Seal::head_bytes, held, false);
}

// At least `wanted` bytes of records wait, the next record's first.
Status NetworkResource::await_bytes(size_t wanted) {
    constexpr size_t room = 2 * (Seal::limit + Seal::overhead);
    if (arrived_.size() < room) arrived_.resize(room);
    if (begin_ + wanted > arrived_.size()) {
        std::memmove(arrived_.data(), arrived_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    while (end_ - begin_ < wanted) {
        auto got = receive_some(fd_.get(), arrived_.data() + end_, arrived_.size() - end_, peer_);
        if (!got) return got.error();
        if (*got == 0)
            return make_error(Code::peer_lost, "receive ghost from", peer_,
                              "the other side has hung up");
        end_ += *got;
    }
    return {};
}

// What has been opened lies in the record's place until it is read.
Result<size_t> NetworkResource::read(void* data, size_t size) {
    while (opened_ == 0) {
        if (in_over_) return size_t{0};
        if (end_ == begin_) begin_ = end_ = 0;
        GHOST_TRY(await_bytes(Seal::head_bytes));
        const auto head = Seal::head_of(arrived_.data() + begin_);
        if (head.size > Seal::limit || (head.size == 0 && !head.last)) return damaged();
        GHOST_TRY(await_bytes(head.size + Seal::overhead));
        char* const record = arrived_.data() + begin_;
        const bool fits = head.size <= size;
        char* const to =
            fits && head.size > 0 ? static_cast<char*>(data) : record + Seal::head_bytes;
        if (!in_->open(record, to)) return damaged();
        in_over_ = head.last;
        begin_ += fits ? head.size + Seal::overhead : Seal::head_bytes;
        if (fits && head.size > 0) return head.size;
        opened_ = fits ? 0 : head.size;
    }
    const size_t part = std::min(size, opened_);
    std::memcpy(data, arrived_.data() + begin_, part);
    begin_ += part;
    opened_ -= part;
    if (opened_ == 0) begin_ += Seal::tag_bytes;
    return part;
}

// Nothing that follows is believed.
Error NetworkResource::damaged() {
    interrupt();
    return make_error(Code::corrupt, "receive ghost from", peer_,
                      "what came is not what the other side has sealed");
}

Status NetworkResource::finalize() {
    record_.resize(Seal::limit + Seal::overhead);
    GHOST_TRY(send_record(nullptr, 0, true));
    if (shutdown(fd_.get(), SHUT_WR) != 0) return lost("finish ghost to", peer_);
    return {};
}

void NetworkResource::interrupt() {
    shutdown(fd_.get(), SHUT_RDWR);
}

Result<NetworkListener> NetworkListener::listen(const std::string& secret, NetworkOptions options) {
    if (sodium_init() < 0) return make_error(Code::internal, "start libsodium");
    if (secret.empty()) return make_error(Code::invalid, "listen for a ghost without a secret");
    NetworkListener out;
    auto fd = (options.interfaces.empty() ? bind_any : bind_chosen)(options, out.host_);
    if (!fd) return fd.error();
    accept_only_who_speaks(fd->get());
    if (::listen(fd->get(), backlog) != 0) return sys_error("listen for ghosts");
    fcntl(fd->get(), F_SETFL, O_NONBLOCK);
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    if (getsockname(fd->get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
        return sys_error("find own port");
    // sin_port and sin6_port share their place.
    out.port_ = ntohs(reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
    Token token;
    randombytes_buf(token.data(), token.size());
    std::array<char, 2 * sizeof(Token) + 1> hex{};
    sodium_bin2hex(hex.data(), hex.size(), token.data(), token.size());
    out.token_ = options.token.empty() ? hex.data() : options.token;
    out.fd_ = std::move(*fd);
    out.secret_ = secret;
    out.options_ = options;
    return out;
}

// A socket that does not listen any more has hung up (poll(2)).
void NetworkListener::interrupt() {
    shutdown(fd_.get(), SHUT_RDWR);
}

Result<std::unique_ptr<NetworkResource>> NetworkListener::accept(int timeout_ms) {
    const int64_t limit = timeout_ms < 0 ? INT64_MAX : monotonic_us() + int64_t{timeout_ms} * 1000;
    auto came = Reception(fd_.get(), token_, secret_).source(limit);
    if (!came) return came.error();
    set_liveness(came->fd.get(), options_);
    const auto peer = name_of_peer(came->fd.get());
    return std::unique_ptr<NetworkResource>(
        new NetworkResource(std::move(came->fd), peer, *came->greeting));
}

}  // namespace ghost::core
