// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/leases.hpp"

#include <arpa/inet.h>
#include <csignal>
#include <netinet/in.h>
#include <unistd.h>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"

namespace ghost::plugin::orte41 {
namespace {

constexpr int backlog = 1024;  // keepers that come before the first look

// At every address of the node; of both families if there is IPv6.
Fd listen_at_all(uint16_t& port) {
    for (const int family : {AF_INET6, AF_INET}) {
        Fd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_in6 at{};  // the port has the same place in both, and zeros are every address
        at.sin6_family = static_cast<sa_family_t>(family);
        socklen_t size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
        auto* address = reinterpret_cast<sockaddr*>(&at);
        const int no = 0;
        if (family == AF_INET6 &&
            ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no) != 0)
            continue;
        if (::bind(fd.get(), address, size) != 0 || ::listen(fd.get(), backlog) != 0 ||
            ::getsockname(fd.get(), address, &size) != 0)
            continue;
        port = ntohs(at.sin6_port);
        return fd;
    }
    return {};
}

// A keeper's beats since the last look and more. False: nobody is there any more.
bool read_away(int fd) {
    char bytes[4096];
    const ssize_t n = ::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

std::string text_of(const sockaddr_storage& at) {
    char text[INET6_ADDRSTRLEN] = "";
    if (at.ss_family == AF_INET6)
        ::inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(at).sin6_addr, text,
                    sizeof text);
    else
        ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(at).sin_addr, text, sizeof text);
    return text;
}

}  // namespace

uint16_t LeaseListener::port() {
    if (!listener_.valid()) listener_ = listen_at_all(port_);
    if (!listener_.valid()) log::warning("{}", sys_error("listen for keepers").message());
    return listener_.valid() ? port_ : 0;
}

void LeaseListener::look() {
    if (!listener_.valid()) return;
    const int64_t now = monotonic_us();
    while (auto arrived = door_.accept(listener_.get(), now)) {
        const uint64_t id = ++last_;
        if (const auto out = door_.enter(id, arrived->from, now)) keepers_.erase(*out);
        keepers_.emplace(id, std::move(arrived->fd));
    }
    std::erase_if(keepers_, [this](const auto& one) {
        if (read_away(one.second.get())) return door_.spoke(one.first), false;
        door_.leave(one.first);
        return true;
    });
}

void OwnKeeper::start(const std::string& program, sockaddr_storage mpirun, uint16_t port,
                      int64_t limit_us) {
    Children::Start how;
    how.argv = {program, std::to_string(::getpid()), text_of(mpirun), std::to_string(port),
                std::to_string(limit_us)};
    how.stdio[0] = how.stdio[1] = null_device;
    how.stdio[2] = STDERR_FILENO;
    auto started = children_.start(how, [this](int status) {
        log::info("the keeper has ended: {}", describe_status(status));
        pid_ = 0;
    });
    if (!started) return log::warning("{}", started.error().message());
    pid_ = started->pid;
    control_ = std::move(started->control);
}

void OwnKeeper::stop() {
    if (pid_ == 0) return;
    children_.forget(pid_);
    ::kill(pid_, SIGKILL);
    pid_ = 0;
}

}  // namespace ghost::plugin::orte41
