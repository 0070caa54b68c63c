// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/netdevice.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <ifaddrs.h>
#include <linux/filter.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sstream>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/log.hpp"
#include "kernet-btl/link/frame_ring.hpp"
#include "kernet-btl/link/net.hpp"
#include "kernet-btl/wire/packet.hpp"

namespace kernet {

using ghost::Fd;

namespace {

constexpr int socket_room = 8 << 20;
constexpr int at_once = 32;  // frames in one system call
// Of the ring. Half of its slots are the window: the others are for what no window counts,
// acknowledgements and repetitions.
constexpr size_t usual_ring = 1 << 20, small_ring = 256 << 10;
constexpr uint32_t vain_looks = 1024;  // of the ring, then the socket is asked what is wrong

struct Interface {
    sockaddr_ll hardware{};
    std::string name;
};

class NetDevice final : public PacketDriver {
  public:
    NetDevice(Fd fd, std::unique_ptr<FrameRing> ring, const sockaddr_ll& own, size_t most)
        : fd_(std::move(fd)), ring_(std::move(ring)), own_(own), to_(own), most_(most) {}
    ~NetDevice() override {
        ring_.reset();
        net::close_later(std::move(fd_));
    }

    const char* name() const override { return "netdevice"; }
    int fd() const override { return fd_.get(); }
    size_t max_packet() const override { return most_; }
    size_t receive_room() const override {
        return ring_ ? ring_->slots() * most_ : net::receive_room(fd_);
    }
    LinkAddress address() const override {
        LinkAddress out;
        out.most = static_cast<uint16_t>(most_);
        out.size = ETH_ALEN;
        std::memcpy(out.bytes.data(), own_.sll_addr, ETH_ALEN);
        return out;
    }

    Status connect(const LinkAddress& peer, uint64_t token) override {
        if (peer.size != ETH_ALEN) {
            return ghost::make_error(ghost::Code::corrupt, "connect by Ethernet", {}, "no address");
        }
        std::memcpy(to_.sll_addr, peer.bytes.data(), ETH_ALEN);
        most_ = std::min<size_t>(most_, peer.most);
        GHOST_TRY(hear_only(token));
        // From here on, and not before, frames come.
        if (bind(fd_.get(), reinterpret_cast<const sockaddr*>(&own_), sizeof own_) != 0) {
            return ghost::sys_error("bind to an interface");
        }
        if (!ring_) in_.reset(new uint8_t[at_once * most_]);
        return {};
    }

    int send(const PacketView* packets, int count) override {
        if (count == 1) return send_one(packets[0]);
        mmsghdr messages[at_once] = {};
        iovec pieces[at_once];
        int done = 0;
        while (done < count) {
            const int part = std::min(count - done, at_once);
            for (int i = 0; i < part; i++) {
                pieces[i] = {packets[done + i].data, packets[done + i].size};
                messages[i].msg_hdr = {};
                messages[i].msg_hdr.msg_name = &to_;
                messages[i].msg_hdr.msg_namelen = sizeof to_;
                messages[i].msg_hdr.msg_iov = &pieces[i];
                messages[i].msg_hdr.msg_iovlen = 1;
            }
            const int taken = sendmmsg(fd_.get(), messages, static_cast<unsigned>(part),
                                       MSG_DONTWAIT | MSG_NOSIGNAL);
            if (taken < 0 && taken_away()) return -1;
            if (taken <= 0) break;  // no room, or the interface is down for a moment
            done += taken;
            if (taken < part) break;
        }
        return done;
    }

    int receive(PacketView* packets, int most) override {
        if (!ring_) return receive_by_calls(packets, most);
        const int count = ring_->take(packets, most);
        if (count > 0) vain_ = 0;
        // An error of the interface leaves fd() readable until somebody has asked for it.
        if (count == 0 && ++vain_ % vain_looks == 0) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        }
        return count;
    }

  private:
    static bool taken_away() { return errno == ENODEV || errno == ENXIO; }

    int send_one(const PacketView& packet) {
        const ssize_t done =
            sendto(fd_.get(), packet.data, packet.size, MSG_DONTWAIT | MSG_NOSIGNAL,
                   reinterpret_cast<const sockaddr*>(&to_), sizeof to_);
        if (done >= 0) return 1;
        return taken_away() ? -1 : 0;
    }

    int receive_by_calls(PacketView* packets, int most) {
        mmsghdr messages[at_once] = {};
        iovec pieces[at_once];
        const int wanted = std::min(most, at_once);
        for (int i = 0; i < wanted; i++) {
            pieces[i] = {in_.get() + static_cast<size_t>(i) * most_, most_};
            messages[i].msg_hdr.msg_iov = &pieces[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        const int count =
            recvmmsg(fd_.get(), messages, static_cast<unsigned>(wanted), MSG_DONTWAIT, nullptr);
        if (count < 0 && taken_away()) return -1;
        for (int i = 0; i < count; i++) {
            packets[i] = {static_cast<uint8_t*>(pieces[i].iov_base), messages[i].msg_len};
        }
        return std::max(count, 0);
    }

    // Packets of this link only, of all that this type of frame brings to the interface.
    Status hear_only(uint64_t token) {
        uint32_t words[2];
        std::memcpy(words, &token, sizeof words);
        constexpr uint32_t at = offsetof(wire::PacketHeader, token);
        sock_filter program[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(words[0]), 0, 3),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at + 4),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(words[1]), 0, 1),
            BPF_STMT(BPF_RET | BPF_K, 0x40000),
            BPF_STMT(BPF_RET | BPF_K, 0),
        };
        const sock_fprog filter{sizeof program / sizeof *program, program};
        if (setsockopt(fd_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0) {
            return ghost::sys_error("filter frames");
        }
        return {};
    }

    Fd fd_;
    std::unique_ptr<FrameRing> ring_;
    sockaddr_ll own_, to_;
    size_t most_;
    std::unique_ptr<uint8_t[]> in_;  // without a ring
    uint32_t vain_ = 0;
};

// The bytes of an address, IPv4 ones alone where they are written as IPv6.
std::string address_bytes(const sockaddr* address) {
    if (address->sa_family == AF_INET) {
        return {
            reinterpret_cast<const char*>(&reinterpret_cast<const sockaddr_in*>(address)->sin_addr),
            4};
    }
    const auto* six = &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
    const auto* bytes = reinterpret_cast<const char*>(six);
    return IN6_IS_ADDR_V4MAPPED(six) ? std::string(bytes + 12, 4) : std::string(bytes, 16);
}

bool same_net(const ifaddrs& interface, const std::string& peer) {
    const std::string own = address_bytes(interface.ifa_addr);
    if (own.size() != peer.size() || !interface.ifa_netmask) return false;
    const std::string mask = address_bytes(interface.ifa_netmask);
    for (size_t i = 0; i < own.size() && i < mask.size(); i++) {
        if ((own[i] ^ peer[i]) & mask[i]) return false;
    }
    return true;
}

// The interface with that address, if the peer is on the net behind it.
bool find_interface(const std::string& own, const std::string& peer, Interface& out) {
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return false;
    for (ifaddrs* i = list; i && out.name.empty(); i = i->ifa_next) {
        if (!i->ifa_addr ||
            (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6)) {
            continue;
        }
        if (address_bytes(i->ifa_addr) == own && same_net(*i, peer)) out.name = i->ifa_name;
    }
    bool found = false;
    for (ifaddrs* i = list; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_PACKET || out.name != i->ifa_name) {
            continue;
        }
        std::memcpy(&out.hardware, i->ifa_addr, sizeof out.hardware);
        found = out.hardware.sll_halen == ETH_ALEN;
    }
    freeifaddrs(list);
    return found;
}

size_t mtu_of(const Fd& fd, const std::string& name) {
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    if (ioctl(fd.get(), SIOCGIFMTU, &request) != 0 || request.ifr_mtu < 576) return 576;
    return std::min<size_t>(static_cast<size_t>(request.ifr_mtu), UINT16_MAX);
}

// Hears nothing before it is bound.
Fd open_socket() {
    return Fd(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

}  // namespace

// Once: what can be had goes along with a process, and where that is not so making an end fails. To
// ask costs a socket more, and who has just closed some may wait 7 ms for another (in every stop).
Status netdevice_usable() {
    static const bool usable = [] {
        Fd probe = open_socket();
        if (!probe) return false;
        net::close_later(std::move(probe));
        return true;
    }();
    if (usable) return {};
    return ghost::make_error(ghost::Code::unsupported, "use link netdevice", {},
                             "CAP_NET_RAW is needed");
}

size_t netdevice_sockets() {
    size_t count = 0;
    std::ifstream list("/proc/net/packet");
    std::string line, skipped, type;
    std::getline(list, line);  // names of the columns
    while (std::getline(list, line)) {
        std::istringstream fields(line);  // sk RefCnt Type Proto ...
        if (fields >> skipped >> skipped >> skipped >> type &&
            std::strtoul(type.c_str(), nullptr, 16) == netdevice_type) {
            count++;
        }
    }
    return count;
}

Result<std::unique_ptr<PacketDriver>> make_netdevice(const Fd& beside, bool small) {
    auto ends = net::ends_of(beside);
    if (!ends) return ends.error();
    const auto family = ends->own.ss_family;
    Interface interface;
    if ((family != AF_INET && family != AF_INET6) ||
        !find_interface(address_bytes(reinterpret_cast<sockaddr*>(&ends->own)),
                        address_bytes(reinterpret_cast<sockaddr*>(&ends->peer)), interface)) {
        return ghost::make_error(ghost::Code::unsupported, "use link netdevice", {},
                                 "the peer is not on the same Ethernet");
    }
    Fd fd = open_socket();
    if (!fd) return ghost::sys_error("create a packet socket");
    interface.hardware.sll_protocol = htons(netdevice_type);
    const size_t most = mtu_of(fd, interface.name);
    auto ring = FrameRing::make(fd, most, small ? small_ring : usual_ring);
    if (!ring) {
        ghost::log::debug("kernet: frames without a ring: {}", ring.error().message());
        fd = open_socket();
        if (!fd) return ghost::sys_error("create a packet socket");
    }
    for (int option : {SO_RCVBUFFORCE, SO_SNDBUFFORCE}) {
        setsockopt(fd.get(), SOL_SOCKET, option, &socket_room, sizeof socket_room);
    }
    return std::unique_ptr<PacketDriver>(
        new NetDevice(std::move(fd), ring ? std::move(*ring) : nullptr, interface.hardware, most));
}

}  // namespace kernet
