// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/udp.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "kernet-btl/link/net.hpp"

namespace kernet {

using ghost::Fd;

namespace {

constexpr int socket_room = 4 << 20;
constexpr size_t datagram_headers = 28, datagram_headers_6 = 48;
constexpr size_t largest_datagram = 65'507;
constexpr int segments_at_once = 64;  // UDP_MAX_SEGMENTS of older kernels
constexpr int buffers = 4;
constexpr size_t buffer_size = 65'536;

in_port_t& port_of(sockaddr_storage& address) {  // at the same place in both (RFC 3493)
    return reinterpret_cast<sockaddr_in*>(&address)->sin_port;
}

socklen_t size_of(const sockaddr_storage& address) {
    return address.ss_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

class UdpDriver final : public PacketDriver {
  public:
    UdpDriver(Fd fd, const sockaddr_storage& own, const sockaddr_storage& peer, size_t most)
        : fd_(std::move(fd)), own_(own), peer_(peer), most_(most) {}

    const char* name() const override { return "udp"; }
    int fd() const override { return fd_.get(); }
    bool holds() const override { return part_at_ != part_end_; }
    size_t max_packet() const override { return most_; }
    size_t receive_room() const override { return net::receive_room(fd_); }
    LinkAddress address() const override {
        LinkAddress out;
        out.most = static_cast<uint16_t>(most_);
        out.size = sizeof(in_port_t);
        sockaddr_storage own = own_;
        std::memcpy(out.bytes.data(), &port_of(own), sizeof(in_port_t));
        return out;
    }

    // The host is the one of the TCP connection: only the port has to be told.
    Status connect(const LinkAddress& peer, uint64_t) override {
        if (peer.size != sizeof(in_port_t)) {
            return ghost::make_error(ghost::Code::corrupt, "connect by UDP", {}, "no port");
        }
        std::memcpy(&port_of(peer_), peer.bytes.data(), sizeof(in_port_t));
        most_ = std::min<size_t>(most_, peer.most);
        if (::connect(fd_.get(), reinterpret_cast<sockaddr*>(&peer_), size_of(peer_)) != 0) {
            return ghost::sys_error("connect by UDP");
        }
        in_.reset(new uint8_t[buffers * buffer_size]);
        return {};
    }

    int send(const PacketView* packets, int count) override {
        int done = 0;
        while (done < count) {
            const int burst = cut_ ? run(packets + done, count - done) : 1;
            const int taken = send_burst(packets + done, burst);
            if (taken < 0) continue;  // this socket cannot be cut for: one by one
            done += taken;
            if (taken == 0) break;
        }
        return done;
    }

    int receive(PacketView* packets, int most) override {
        int count = 0;
        while (count < most) {
            if (part_at_ == part_end_ && !next_part()) break;
            const size_t size = std::min(segment_, static_cast<size_t>(part_end_ - part_at_));
            packets[count++] = {part_at_, size};
            part_at_ += size;
            if (part_at_ == part_end_ && (used_ == buffers || segment_ < most_)) break;
        }
        used_ = part_at_ == part_end_ ? 0 : used_;
        return count == 0 && refused_ ? -1 : count;
    }

  private:
    // How many from the first on are equally long, the last one may be shorter: what one call cuts.
    static int run(const PacketView* packets, int count) {
        size_t bytes = packets[0].size;
        int burst = 1;
        while (burst < count && burst < segments_at_once) {
            const size_t size = packets[burst].size;
            if (size > packets[0].size || bytes + size > largest_datagram) break;
            bytes += size;
            burst++;
            if (size < packets[0].size) break;
        }
        return burst;
    }

    // -1: try without cutting.
    int send_burst(const PacketView* packets, int burst) {
        iovec pieces[segments_at_once];
        for (int i = 0; i < burst; i++) pieces[i] = {packets[i].data, packets[i].size};
        msghdr message{};
        message.msg_iov = pieces;
        message.msg_iovlen = static_cast<size_t>(burst);
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))] = {};
        if (burst > 1) {
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            cmsghdr* head = CMSG_FIRSTHDR(&message);
            head->cmsg_level = SOL_UDP;
            head->cmsg_type = UDP_SEGMENT;
            head->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            const auto size = static_cast<uint16_t>(packets[0].size);
            std::memcpy(CMSG_DATA(head), &size, sizeof size);
        }
        const ssize_t done = sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done >= 0) return burst;
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS) return 0;
        // Nobody is there any more; what was sent before is still to be read.
        if (errno == ECONNREFUSED || errno == EPIPE) refused_ = true;
        if (burst > 1 && (errno == EIO || errno == EINVAL || errno == EOPNOTSUPP)) {
            cut_ = false;
            return -1;
        }
        return burst;  // a route that is gone for a moment is a loss like others
    }

    bool next_part() {
        if (used_ == buffers) return false;
        uint8_t* buffer = in_.get() + static_cast<size_t>(used_) * buffer_size;
        iovec piece{buffer, buffer_size};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        ssize_t got = recvmsg(fd_.get(), &message, MSG_DONTWAIT);
        if (got < 0 && errno == ECONNREFUSED) {
            refused_ = true;
            message.msg_controllen = sizeof control;
            got = recvmsg(fd_.get(), &message, MSG_DONTWAIT);
        }
        if (got <= 0) return false;
        used_++;
        part_at_ = buffer;
        part_end_ = buffer + got;
        segment_ = static_cast<size_t>(got);
        for (cmsghdr* head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
            if (head->cmsg_level != SOL_UDP || head->cmsg_type != UDP_GRO) continue;
            int size = 0;
            std::memcpy(&size, CMSG_DATA(head), sizeof size);
            if (size > 0) segment_ = static_cast<size_t>(size);
        }
        return true;
    }

    Fd fd_;
    sockaddr_storage own_, peer_;
    size_t most_;
    bool cut_ = true;
    bool refused_ = false;
    std::unique_ptr<uint8_t[]> in_;
    int used_ = 0;  // buffers given out
    uint8_t* part_at_ = nullptr;
    uint8_t* part_end_ = nullptr;
    size_t segment_ = 0;
};

void make_room(const Fd& fd, int force, int plain) {
    if (setsockopt(fd.get(), SOL_SOCKET, force, &socket_room, sizeof socket_room) != 0) {
        setsockopt(fd.get(), SOL_SOCKET, plain, &socket_room, sizeof socket_room);
    }
}

// The largest datagram that is not cut up on the way between the ends of a connection.
size_t path_packet(const Fd& beside, bool six_socket, bool six) {
    int mtu = 0;
    socklen_t size = sizeof mtu;
    const int got = six_socket ? getsockopt(beside.get(), IPPROTO_IPV6, IPV6_MTU, &mtu, &size)
                               : getsockopt(beside.get(), IPPROTO_IP, IP_MTU, &mtu, &size);
    if (got != 0 || mtu < 1280) mtu = 1280;
    const size_t headers = six ? datagram_headers_6 : datagram_headers;
    return std::min<size_t>(static_cast<size_t>(mtu) - headers, largest_datagram);
}

}  // namespace

Result<std::unique_ptr<PacketDriver>> make_udp(const Fd& beside) {
    auto ends = net::ends_of(beside);
    if (!ends) return ends.error();
    auto& [own, peer, own_size, peer_size] = *ends;
    const bool six = own.ss_family == AF_INET6;
    if (!six && own.ss_family != AF_INET) {
        return ghost::make_error(ghost::Code::unsupported, "use UDP beside this connection");
    }
    Fd fd(socket(own.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return ghost::sys_error("create a UDP socket");
    make_room(fd, SO_RCVBUFFORCE, SO_RCVBUF);
    make_room(fd, SO_SNDBUFFORCE, SO_SNDBUF);
    const int on = 1;
    setsockopt(fd.get(), SOL_UDP, UDP_GRO, &on, sizeof on);  // without it, one by one
    port_of(own) = 0;
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&own), own_size) != 0 ||
        getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &own_size) != 0) {
        return ghost::sys_error("bind a UDP socket");
    }
    const bool mapped =
        six && IN6_IS_ADDR_V4MAPPED(&reinterpret_cast<sockaddr_in6*>(&peer)->sin6_addr);
    return std::unique_ptr<PacketDriver>(
        new UdpDriver(std::move(fd), own, peer, path_packet(beside, six, six && !mapped)));
}

}  // namespace kernet
