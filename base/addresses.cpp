// SPDX-License-Identifier: BSD-3-Clause
#include "base/addresses.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <bit>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <numeric>
#include <sstream>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <tuple>
#include <unistd.h>

#include "base/fd.hpp"

namespace ghost {

namespace {

using Bytes = std::array<uint8_t, 16>;

const void* bytes_of(const sockaddr* address) {
    if (address->sa_family == AF_INET) {
        return &reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
    }
    return &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
}

size_t size_of(int family) {
    return family == AF_INET ? 4 : 16;
}

int prefix_of(const sockaddr* mask, int family) {
    if (!mask) return static_cast<int>(size_of(family) * 8);
    const auto* bytes = static_cast<const uint8_t*>(bytes_of(mask));
    int bits = 0;
    for (size_t i = 0; i < size_of(family); i++) bits += std::popcount(bytes[i]);
    return bits;
}

// ethtool(8) by ioctl: /sys may show another network name space's interfaces.
uint32_t speed_of(const ghost::Fd& socket, const char* interface) {
    ethtool_cmd command{};
    command.cmd = ETHTOOL_GSET;
    ifreq request{};
    std::strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
    request.ifr_data = reinterpret_cast<char*>(&command);
    if (ioctl(socket.get(), SIOCETHTOOL, &request) != 0) return 0;
    const uint32_t mbits = ethtool_cmd_speed(&command);
    return mbits == static_cast<uint32_t>(SPEED_UNKNOWN) ? 0 : mbits;
}

bool read_address(const ifaddrs& from, int family, OwnAddress& out) {
    if (!from.ifa_addr || from.ifa_addr->sa_family != family || !(from.ifa_flags & IFF_UP)) {
        return false;
    }
    const void* bytes = bytes_of(from.ifa_addr);
    if (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(static_cast<const in6_addr*>(bytes))) {
        return false;  // needs a scope: unusable
    }
    char text[INET6_ADDRSTRLEN];
    if (!inet_ntop(family, bytes, text, sizeof text)) return false;
    out.interface = from.ifa_name;
    out.text = text;
    out.family = family;
    std::memcpy(out.bytes.data(), bytes, size_of(family));
    out.prefix = prefix_of(from.ifa_netmask, family);
    out.loopback = (from.ifa_flags & IFF_LOOPBACK) != 0;
    return true;
}

std::vector<OwnAddress> all_addresses() {
    std::vector<OwnAddress> out;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return out;
    const ghost::Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    for (int family : {AF_INET, AF_INET6}) {
        for (ifaddrs* i = list; i; i = i->ifa_next) {
            OwnAddress address;
            if (!read_address(*i, family, address)) continue;
            if (socket) address.mbits = speed_of(socket, i->ifa_name);
            out.push_back(std::move(address));
        }
    }
    freeifaddrs(list);
    std::stable_sort(out.begin(), out.end(), [](const OwnAddress& a, const OwnAddress& b) {
        return std::tuple(a.family == AF_INET6, b.mbits) <
               std::tuple(b.family == AF_INET6, a.mbits);
    });
    return out;
}

bool alike(const Bytes& a, const Bytes& b, int bits) {
    for (int i = 0; i < bits; i++) {
        const auto at = static_cast<size_t>(i / 8);
        if ((a[at] ^ b[at]) & 0x80 >> i % 8) return false;
    }
    return true;
}

bool in_net(const OwnAddress& address, const std::string& cidr) {
    const size_t slash = cidr.find('/');
    Bytes net{};
    if (inet_pton(address.family, cidr.substr(0, slash).c_str(), net.data()) != 1) return false;
    const int most = static_cast<int>(size_of(address.family) * 8);
    const int bits = slash == std::string::npos ? most : std::atoi(cidr.c_str() + slash + 1);
    return bits >= 0 && bits <= most && alike(net, address.bytes, bits);
}

bool selected(const OwnAddress& address, const std::string& include) {
    std::istringstream list(include);
    for (std::string item; std::getline(list, item, ',');) {
        if (item == address.interface || in_net(address, item)) return true;
    }
    return false;
}

// How good a way to a host is: a kind, and within it the speed.
struct Quality {
    enum Kind { ours, routed, on_our_net } kind = routed;
    uint32_t mbits = 0;
    auto operator<=>(const Quality&) const = default;
};

Quality quality_of(const std::string& host, const std::vector<OwnAddress>& own, bool same_node) {
    Quality best;
    Bytes bytes{};
    const int family = inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 ? AF_INET : AF_INET6;
    if (family == AF_INET6 && inet_pton(AF_INET6, host.c_str(), bytes.data()) != 1) return best;
    for (const OwnAddress& address : own) {
        if (address.family != family) continue;
        if (!same_node && address.bytes == bytes) return {Quality::ours, 0};
        if (!alike(address.bytes, bytes, address.prefix)) continue;
        best = std::max(best, Quality{Quality::on_our_net, address.mbits});
    }
    return best;
}

}  // namespace

std::string host_name() {
    std::array<char, HOST_NAME_MAX + 1> name{};
    ::gethostname(name.data(), name.size() - 1);
    return name.data();
}

Result<std::vector<OwnAddress>> own_addresses(const std::string& include) {
    std::vector<OwnAddress> chosen, loopback;
    for (OwnAddress& address : all_addresses()) {
        const bool wanted = include.empty() ? !address.loopback : selected(address, include);
        if (wanted) {
            chosen.push_back(std::move(address));
        } else if (include.empty()) {
            loopback.push_back(std::move(address));
        }
    }
    if (!chosen.empty()) return chosen;
    if (!loopback.empty()) return loopback;
    return make_error(Code::invalid, "find network interfaces", include);
}

std::vector<size_t> by_quality(const std::vector<std::string>& hosts,
                               const std::vector<OwnAddress>& own, bool same_node) {
    std::vector<Quality> qualities;
    for (const std::string& host : hosts) qualities.push_back(quality_of(host, own, same_node));
    std::vector<size_t> order(hosts.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return qualities[a] > qualities[b]; });
    return order;
}

}  // namespace ghost
