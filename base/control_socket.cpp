// SPDX-License-Identifier: BSD-3-Clause
#include "base/control_socket.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <vector>

#include "base/await.hpp"

namespace ghost {
namespace {

// Of connect(): with a full backlog it would wait for as long as the other end likes.
constexpr timeval connect_limit{2, 0};

struct Address {
    sockaddr_un sa{};
    socklen_t length = 0;
    Fd folder;  // of a path that is too long for sa; open as long as sa is used

    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&sa); }
};

Result<Address> make_address(const std::string& address) {
    Address out;
    out.sa.sun_family = AF_UNIX;
    std::string name = address;
    const auto slash = address.rfind('/');
    const bool path = !address.empty() && address[0] != '@';
    if (path && slash != std::string::npos && name.size() >= sizeof out.sa.sun_path) {
        out.folder.reset(
            ::open(address.substr(0, slash + 1).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (!out.folder) return sys_error("open the folder of control socket", address);
        name = "/proc/self/fd/" + std::to_string(out.folder.get()) + address.substr(slash);
    }
    if (name.empty() || name.size() >= sizeof out.sa.sun_path)
        return make_error(Code::invalid, "use control socket address", address);
    std::memcpy(out.sa.sun_path, name.data(), name.size());
    out.length = offsetof(sockaddr_un, sun_path) + name.size() + (path ? 1 : 0);
    if (!path) out.sa.sun_path[0] = '\0';
    return out;
}

Status check_peer(int fd, const std::string& what) {
    ucred cred{};
    socklen_t length = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0) {
        return sys_error("read peer credentials of", what);
    }
    if (cred.uid != geteuid() && cred.uid != 0) {
        return make_error(Code::refused, "talk to a process of another user at", what);
    }
    return {};
}

// For the log.
std::string begin_of(const std::string& text) {
    constexpr size_t enough = 60;
    return text.size() <= enough ? text : text.substr(0, enough) + "…";
}

bool is_object(const std::string& text) {
    const auto begin = text.find_first_not_of(" \t\r\n");
    return begin != std::string::npos && text[begin] == '{' && Json::accept(text);
}

Result<Fd> new_socket(int flags = 0) {
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0));
    if (!fd.valid()) return sys_error("create control socket");
    return fd;
}

// What an address names, in the order of preference.
std::vector<std::string> alternatives(const std::string& address) {
    const auto slash = address.rfind('/');
    if (address.empty() || address[0] != '@' || slash == std::string::npos) return {address};
    std::vector<std::string> out;
    for (size_t at = slash + 1; at <= address.size();) {
        const auto end = std::min(address.find(':', at), address.size());
        out.push_back(address.substr(0, slash + 1) + address.substr(at, end - at));
        at = end + 1;
    }
    return out;
}

Result<Fd> connect_one(const std::string& address, const timeval& limit) {
    auto sa = make_address(address);
    if (!sa) return sa.error();
    const bool waits = limit.tv_sec > 0;
    auto fd = new_socket(waits ? 0 : SOCK_NONBLOCK);
    if (!fd) return fd;
    const timeval none{};
    if (waits && ::setsockopt(fd->get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0)
        return sys_error("set the limits of control socket", address);
    if (::connect(fd->get(), sa->get(), sa->length) != 0) {
        if (errno == EAGAIN)
            return sys_error("connect to control socket, which takes no more connections, at",
                             address, Code::busy);
        return sys_error("connect to control socket", address);
    }
    ::setsockopt(fd->get(), SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    GHOST_TRY(check_peer(fd->get(), address));
    return fd;
}

}  // namespace

Result<ControlSocket> ControlSocket::connect(const std::string& address) {
    std::optional<Error> first;
    for (const auto& name : alternatives(address)) {
        auto fd = connect_one(name, connect_limit);
        if (fd) return ControlSocket(std::move(*fd));
        if (!first) first = fd.error();
    }
    return *first;
}

Status ControlSocket::send_text(const std::string& text, const std::vector<int>& fds) const {
    if (text.size() > control_packet_limit || fds.size() > most_control_descriptors) {
        return make_error(Code::invalid, "send an oversized control message", begin_of(text));
    }
    iovec io{const_cast<char*>(text.data()), text.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(most_control_descriptors * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
        std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
    }
    for (;;) {
        if (::sendmsg(fd_.get(), &message, MSG_NOSIGNAL) >= 0) return {};
        if (errno == EINTR) continue;
        if (errno == EAGAIN) {
            await_writable(fd_.get(), -1);
            continue;
        }
        Code code = errno == EPIPE || errno == ECONNRESET ? Code::peer_lost : Code::io;
        return sys_error("send control message", begin_of(text), code);
    }
}

Result<ControlMessage> ControlSocket::receive(int timeout_ms) const {
    if (!await_readable(fd_.get(), timeout_ms))
        return make_error(Code::timeout, "wait for a control message");
    std::vector<char> buffer(control_packet_limit);
    iovec io{buffer.data(), buffer.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(most_control_descriptors * sizeof(int))];
    msghdr message{};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t n = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
    if (n < 0) {
        return sys_error("receive control message", {},
                         errno == ECONNRESET ? Code::peer_lost : Code::io);
    }
    ControlMessage out;
    for (cmsghdr* h = CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        std::vector<int> raw(count);
        std::memcpy(raw.data(), CMSG_DATA(h), count * sizeof(int));
        for (int fd : raw) out.fds.emplace_back(fd);
    }
    if (n == 0) return make_error(Code::peer_lost, "receive control message");
    if ((message.msg_flags & MSG_TRUNC) != 0) {
        return make_error(Code::corrupt, "receive an oversized control message");
    }
    out.text.assign(buffer.data(), static_cast<size_t>(n));
    if (!is_object(out.text)) return make_error(Code::corrupt, "parse control message");
    return out;
}

void ControlSocket::hang_up() {
    if (fd_) ::shutdown(fd_.get(), SHUT_RDWR);
    fd_.reset();
}

pid_t ControlSocket::peer_pid() const {
    ucred cred{};
    socklen_t length = sizeof cred;
    if (getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0) return 0;
    return cred.pid;
}

namespace {

Result<Fd> bind_one(const std::string& address) {
    auto sa = make_address(address);
    if (!sa) return sa.error();
    auto fd = new_socket(SOCK_NONBLOCK);
    if (!fd) return fd;
    // The mode of a bound socket comes from fchmod before bind (unix(7)): never open for a moment.
    if (address[0] != '@' && ::fchmod(fd->get(), 0600) != 0)
        return sys_error("set mode of control socket", address);
    if (::bind(fd->get(), sa->get(), sa->length) != 0)
        return sys_error("bind control socket", address,
                         errno == EADDRINUSE ? Code::busy : Code::io);
    return fd;
}

}  // namespace

Result<ControlListener> ControlListener::listen(const std::string& address) {
    std::optional<Error> first;
    for (const auto& name : alternatives(address)) {
        auto fd = bind_one(name);
        if (fd) {
            ControlListener out;
            if (name[0] != '@') out.path_ = name;
            out.fd_ = std::move(*fd);
            if (::listen(out.fd_.get(), 128) != 0)
                return sys_error("listen on control socket", name);
            return out;
        }
        // another process of ours, or a stranger
        const bool taken = fd.error().code == Code::busy;
        if (!taken || connect_one(name, {})) return fd.error();
        if (!first) first = fd.error();
    }
    return *first;
}

ControlListener& ControlListener::operator=(ControlListener&& other) noexcept {
    if (this != &other) {
        close();
        fd_ = std::move(other.fd_);
        path_ = std::exchange(other.path_, {});
        door_ = std::move(other.door_);
    }
    return *this;
}

Result<ControlSocket> ControlListener::accept(int64_t now) {
    while (auto came = door_.accept(fd_.get(), now)) {
        if (Status ours = check_peer(came->fd.get(), "control socket"); !ours) {
            refusals_.write(log::Level::warning, ours.error().message());
            continue;
        }
        return ControlSocket(std::move(came->fd));
    }
    return sys_error("accept control connection", {}, errno == EAGAIN ? Code::busy : Code::io);
}

void ControlListener::close() {
    if (fd_.valid() && !path_.empty()) ::unlink(path_.c_str());
    path_.clear();
    fd_.reset();
}

Result<std::pair<ControlSocket, ControlSocket>> control_pair() {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
        return sys_error("create control socket pair");
    }
    return std::pair{ControlSocket(Fd(fds[0])), ControlSocket(Fd(fds[1]))};
}

}  // namespace ghost
