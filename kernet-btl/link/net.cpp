#include "kernet-btl/link/net.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sstream>
#include <sys/socket.h>
#include <sys/un.h>

namespace kernet::net {

namespace {

struct Address {
    std::string interface;
    int family;
    uint8_t bytes[16];
    std::string text;
    bool loopback;
};

std::vector<Address> interface_addresses() {
    std::vector<Address> out;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return out;
    for (int family : {AF_INET, AF_INET6}) {
        for (ifaddrs* i = list; i; i = i->ifa_next) {
            if (!i->ifa_addr || i->ifa_addr->sa_family != family || !(i->ifa_flags & IFF_UP)) {
                continue;
            }
            Address a{i->ifa_name, family, {}, {}, (i->ifa_flags & IFF_LOOPBACK) != 0};
            char text[INET6_ADDRSTRLEN];
            if (family == AF_INET) {
                std::memcpy(a.bytes, &reinterpret_cast<sockaddr_in*>(i->ifa_addr)->sin_addr, 4);
            } else {
                const auto* in6 = reinterpret_cast<sockaddr_in6*>(i->ifa_addr);
                if (IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr)) continue;  // needs a scope: unusable
                std::memcpy(a.bytes, &in6->sin6_addr, 16);
            }
            if (!inet_ntop(family, a.bytes, text, sizeof text)) continue;
            a.text = text;
            out.push_back(std::move(a));
        }
    }
    freeifaddrs(list);
    return out;
}

bool in_net(const Address& address, const std::string& cidr) {
    const size_t slash = cidr.find('/');
    uint8_t net[16];
    if (inet_pton(address.family, cidr.substr(0, slash).c_str(), net) != 1) return false;
    const int most = address.family == AF_INET ? 32 : 128;
    int bits = slash == std::string::npos ? most : std::atoi(cidr.c_str() + slash + 1);
    if (bits < 0 || bits > most) return false;
    for (int i = 0; i < bits; i++) {
        const int mask = 0x80 >> i % 8;
        if ((net[i / 8] & mask) != (address.bytes[i / 8] & mask)) return false;
    }
    return true;
}

bool selected(const Address& address, const std::string& include) {
    std::istringstream list(include);
    for (std::string item; std::getline(list, item, ',');) {
        if (item == address.interface || in_net(address, item)) return true;
    }
    return false;
}

Result<socklen_t> abstract_address(const std::string& name, sockaddr_un& address) {
    address = sockaddr_un{};
    address.sun_family = AF_UNIX;
    if (name.size() < 2 || name[0] != '@' || name.size() > sizeof address.sun_path) {
        return ghost::make_error(ghost::Code::invalid, "use as abstract socket name", name);
    }
    std::memcpy(address.sun_path + 1, name.data() + 1, name.size() - 1);
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
}

}  // namespace

Result<std::vector<std::string>> local_addresses(const std::string& include) {
    std::vector<std::string> chosen, loopback;
    for (const Address& address : interface_addresses()) {
        if (!include.empty()) {
            if (selected(address, include)) chosen.push_back(address.text);
        } else {
            (address.loopback ? loopback : chosen).push_back(address.text);
        }
    }
    if (!chosen.empty()) return chosen;
    if (include.empty() && !loopback.empty()) return loopback;
    return ghost::make_error(ghost::Code::invalid, "find network interfaces", include);
}

namespace {

// No descriptor in it: it could not be done, errno says why.
TcpListener listen_at(int family, uint16_t port, const std::string& congestion) {
    TcpListener listener;
    listener.fd.reset(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener.fd) return {};
    tune_tcp(listener.fd, congestion);
    sockaddr_storage any{};
    any.ss_family = static_cast<sa_family_t>(family);
    const bool six = family == AF_INET6;
    socklen_t size = six ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    // (the port is at the same place in both, RFC 3493)
    in_port_t& where = six ? reinterpret_cast<sockaddr_in6*>(&any)->sin6_port
                           : reinterpret_cast<sockaddr_in*>(&any)->sin_port;
    where = htons(port);
    int off = 0, on = 1;
    if (six) setsockopt(listener.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    // Links of before, which linger, do not keep us from our old port.
    if (port != 0) setsockopt(listener.fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener.fd.get(), reinterpret_cast<sockaddr*>(&any), size) != 0 ||
        ::listen(listener.fd.get(), 128) != 0 ||
        getsockname(listener.fd.get(), reinterpret_cast<sockaddr*>(&any), &size) != 0) {
        return {};
    }
    listener.port = ntohs(where);
    return listener;
}

}  // namespace

Result<TcpListener> listen_tcp(const std::string& congestion, uint16_t wish) {
    // One socket for both families; IPv4 alone where IPv6 is switched off.
    for (uint16_t port : {wish, uint16_t{0}}) {
        for (int family : {AF_INET6, AF_INET}) {
            TcpListener listener = listen_at(family, port, congestion);
            if (listener.fd) return listener;
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
        ::listen(fd.get(), 128) != 0) {
        return ghost::sys_error("listen for shared memory links", name);
    }
    return fd;
}

Result<Fd> connect_tcp(const std::string& host, uint16_t port, const std::string& congestion) {
    sockaddr_storage to{};
    socklen_t size = 0;
    auto* in4 = reinterpret_cast<sockaddr_in*>(&to);
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&to);
    if (inet_pton(AF_INET, host.c_str(), &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        size = sizeof *in4;
    } else if (inet_pton(AF_INET6, host.c_str(), &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        size = sizeof *in6;
    } else {
        return ghost::make_error(ghost::Code::invalid, "use as address", host);
    }
    Fd fd(socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return ghost::sys_error("create a TCP socket");
    tune_tcp(fd, congestion);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), size) != 0 && errno != EINPROGRESS) {
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

Result<Fd> accept(const Fd& listener) {
    Fd fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) return fd;
    return ghost::sys_error("accept a link", {},
                            errno == EAGAIN ? ghost::Code::busy : ghost::Code::io);
}

void tune_tcp(const Fd& fd, const std::string& congestion) {
    const int on = 1, idle = 10, interval = 5, count = 3;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    std::istringstream list(congestion);
    for (std::string name; std::getline(list, name, ',');) {
        if (setsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, name.data(),
                       static_cast<socklen_t>(name.size())) == 0) {
            break;
        }
    }
}

void acknowledge_on_arrival(int fd, bool on) {
    // Up to 48 KB that is the quicker way; with a mark of 64 KB large messages take 1.15 of the
    // time.
    const int mark = on ? 32 << 10 : 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark);
}

bool same_user(const Fd& fd) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
    return peer.uid == geteuid() || peer.uid == 0;
}

Status send_with_fd(const Fd& socket, const void* bytes, size_t size, int fd) {
    iovec iov{const_cast<void*>(bytes), size};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (sendmsg(socket.get(), &message, MSG_NOSIGNAL) != static_cast<ssize_t>(size)) {
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

}  // namespace kernet::net
