// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/net.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/sockios.h>
#include <span>
#include <sstream>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>

#include "base/doorway.hpp"
#include "base/tcp.hpp"

namespace kernet::net {

namespace {

constexpr int tcp_rto_max_ms = 44;  // TCP_RTO_MAX_MS (linux/tcp.h), since Linux 6.15

Result<socklen_t> abstract_address(const std::string& name, sockaddr_un& address) {
    address = sockaddr_un{};
    address.sun_family = AF_UNIX;
    if (name.size() < 2 || name[0] != '@' || name.size() > sizeof address.sun_path) {
        return ghost::make_error(ghost::Code::invalid, "use as abstract socket name", name);
    }
    std::memcpy(address.sun_path + 1, name.data() + 1, name.size() - 1);
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
}

// A numeric address, and a port.
struct Address {
    sockaddr_storage bytes{};
    socklen_t size = 0;  // 0: it is none

    Address(const std::string& host, uint16_t port) {
        if (inet_pton(AF_INET, host.c_str(), &four().sin_addr) == 1) {
            bytes.ss_family = AF_INET;
            size = sizeof(sockaddr_in);
        } else if (inet_pton(AF_INET6, host.c_str(), &six().sin6_addr) == 1) {
            bytes.ss_family = AF_INET6;
            size = sizeof(sockaddr_in6);
        }
        port_place() = htons(port);
    }
    sockaddr_in& four() { return reinterpret_cast<sockaddr_in&>(bytes); }
    sockaddr_in6& six() { return reinterpret_cast<sockaddr_in6&>(bytes); }
    // (at the same place in both, RFC 3493)
    in_port_t& port_place() { return four().sin_port; }
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&bytes); }
};

// No descriptor: it could not be done, errno says why. both: of IPv6, and takes IPv4 too.
Fd listen_at(const std::string& host, uint16_t& port, bool both, const TcpTuning& tuning) {
    Address at(host, port);
    Fd fd(socket(at.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return fd;
    tune_tcp(fd, tuning);
    const int only = both ? 0 : 1, on = 1;
    if (at.bytes.ss_family == AF_INET6) {
        setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
    }
    // Links of before, which linger, do not keep us from our old port.
    if (port != 0) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ghost::accept_only_who_speaks(fd.get());
    if (bind(fd.get(), at.get(), at.size) != 0 || ::listen(fd.get(), backlog) != 0 ||
        getsockname(fd.get(), at.get(), &at.size) != 0) {
        return {};
    }
    port = ntohs(at.port_place());
    return fd;
}

// At none: errno says why.
TcpListening listen_at_all(const std::vector<std::string>& hosts, uint16_t port, bool both,
                           const TcpTuning& tuning) {
    TcpListening out;
    for (const std::string& host : hosts) {
        Fd fd = listen_at(host, port, both, tuning);
        if (!fd) return {};
        out.fds.push_back(std::move(fd));
    }
    out.port = port;
    return out;
}

}  // namespace

Result<TcpListening> listen_tcp(const TcpTuning& tuning, const std::vector<std::string>& hosts,
                                uint16_t wish) {
    // One socket for both families; IPv4 alone where IPv6 is switched off.
    const std::vector<std::vector<std::string>> ways =
        hosts.empty() ? std::vector<std::vector<std::string>>{{"::"}, {"0.0.0.0"}}
                      : std::vector<std::vector<std::string>>{hosts};
    // A port that is free at one address may be somebody's at the next.
    for (uint16_t port : {wish, uint16_t{0}, uint16_t{0}, uint16_t{0}}) {
        for (const auto& way : ways) {
            TcpListening listening = listen_at_all(way, port, hosts.empty(), tuning);
            if (!listening.fds.empty()) return listening;
            // Not the same port for one family only: somebody else has it.
            if (port != 0 && errno == EADDRINUSE) break;
        }
    }
    return ghost::sys_error("listen for TCP links");
}

Result<Fd> listen_unix(const std::string& name) {
    sockaddr_un address;
    auto size = abstract_address(name, address);
    if (!size) return size.error();
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return ghost::sys_error("create a Unix socket");
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), *size) != 0 ||
        ::listen(fd.get(), backlog) != 0) {
        return ghost::sys_error("listen for shared memory links", name);
    }
    return fd;
}

Result<Fd> connect_tcp(const std::string& host, uint16_t port, const TcpTuning& tuning) {
    Address to(host, port);
    if (to.size == 0) return ghost::make_error(ghost::Code::invalid, "use as address", host);
    Fd fd(socket(to.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return ghost::sys_error("create a TCP socket");
    tune_tcp(fd, tuning);
    if (::connect(fd.get(), to.get(), to.size) != 0 && errno != EINPROGRESS) {
        return ghost::sys_error("connect to", host);
    }
    return fd;
}

Result<Fd> connect_unix(const std::string& name) {
    sockaddr_un address;
    auto size = abstract_address(name, address);
    if (!size) return size.error();
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return ghost::sys_error("create a Unix socket");
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), *size) != 0) {
        return ghost::sys_error("connect to", name);
    }
    return fd;
}

int connect_error(const Fd& fd) {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
    return error;
}

Result<Ends> ends_of(const Fd& connection) {
    Ends out;
    if (getsockname(connection.get(), reinterpret_cast<sockaddr*>(&out.own), &out.own_size) == 0 &&
        getpeername(connection.get(), reinterpret_cast<sockaddr*>(&out.peer), &out.peer_size) ==
            0) {
        return out;
    }
    return ghost::sys_error("find the ends of a connection", {},
                            errno == ENOTCONN ? ghost::Code::peer_lost : ghost::Code::io);
}

void tune_tcp(const Fd& fd, const TcpTuning& tuning) {
    const auto limit =
        static_cast<int>(std::min<int64_t>(tuning.dead_after_us / 1'000'000, 30'000));
    const int on = 1, count = 3, interval = std::max(limit / 6, 1);
    const int idle = std::max(limit - count * interval, 1);
    // A full window is asked about, and what is lost sent again, this often at least.
    const int longest_wait_ms = std::clamp(limit * 1000 / 4, 1000, 120'000);
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd.get(), IPPROTO_TCP, tcp_rto_max_ms, &longest_wait_ms, sizeof longest_wait_ms);
    std::istringstream list(tuning.congestion);
    for (std::string name; std::getline(list, name, ',');) {
        if (setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, name.data(),
                       static_cast<socklen_t>(name.size())) == 0) {
            break;
        }
    }
}

bool node_is_dead(const Fd& fd, int64_t dead_after_us) {
    tcp_info info{};
    socklen_t size = sizeof info;
    if (getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
    // What it said last is read first: it may have been goodbye.
    int unread = 0;
    if (info.tcpi_state == TCP_CLOSE) return ioctl(fd.get(), SIOCINQ, &unread) == 0 && unread == 0;
    return ghost::is_unanswered(fd.get(), dead_after_us);
}

void acknowledge_on_arrival(int fd, int below) {
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &below, sizeof below);
}

size_t receive_room(const Fd& fd) {
    int room = 0;
    socklen_t size = sizeof room;
    getsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &room, &size);
    return static_cast<size_t>(room);
}

bool same_user(const Fd& fd) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
    return peer.uid == geteuid() || peer.uid == 0;
}

namespace {

constexpr size_t most_fds = 2;  // of one message

ssize_t send_fds(const Fd& socket, const void* bytes, size_t size, std::span<const int> fds,
                 int flags) {
    iovec iov{const_cast<void*>(bytes), size};
    alignas(cmsghdr) char control[CMSG_SPACE(most_fds * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(head), fds.data(), fds.size_bytes());
    return sendmsg(socket.get(), &message, MSG_NOSIGNAL | flags);
}

}  // namespace

Status send_with_fd(const Fd& socket, const void* bytes, size_t size, int fd) {
    if (send_fds(socket, bytes, size, {&fd, 1}, 0) != static_cast<ssize_t>(size)) {
        return ghost::sys_error("pass a ring to the peer");
    }
    return {};
}

ssize_t receive_with_fd(const Fd& socket, void* bytes, size_t size, Fd& fd) {
    iovec iov{bytes, size};
    alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = recvmsg(socket.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return got;
    for (cmsghdr* head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int received;
            std::memcpy(&received, CMSG_DATA(head) + i * sizeof(int), sizeof received);
            Fd owned(received);
            if (!fd) fd = std::move(owned);  // more than one is closed again
        }
    }
    return got;
}

// It is put on its way to a socket that is on its way to itself. When both are closed nobody can
// ever receive them, which the kernel's collector for such sockets finds out and ends them, on a
// thread of its own since Linux 6.9 (net/unix/garbage.c).
void close_later(Fd fd) {
    int ends[2];
    if (!fd || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) != 0) return;
    const Fd from(ends[0]), to(ends[1]);
    const int both[most_fds] = {fd.get(), to.get()};
    (void)send_fds(from, "", 1, both, MSG_DONTWAIT);
    // Before the other two: once these are closed the collector may be through at any moment, and
    // whoever closes last waits.
    fd.reset();
}

Status closes_later() {
    utsname system{};
    int major = 0, minor = 0;
    const bool known =
        uname(&system) == 0 && std::sscanf(system.release, "%d.%d", &major, &minor) == 2;
    if (known && (major > 6 || (major == 6 && minor >= 9))) return {};
    return ghost::make_error(ghost::Code::unsupported, "close packet sockets without waiting", {},
                             "Linux 6.9 is needed");
}

}  // namespace kernet::net
