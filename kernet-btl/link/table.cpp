// SPDX-License-Identifier: BSD-3-Clause
#include "kernet-btl/link/table.hpp"

#include <sstream>

#include "kernet-btl/link/net.hpp"
#include "kernet-btl/link/netdevice.hpp"
#include "kernet-btl/link/ofi.hpp"
#include "kernet-btl/link/udp.hpp"
#include "kernet-btl/wire/frame.hpp"

namespace kernet {

namespace {

using wire::LinkKind;

Status has_loop(const LoopHub* loop) {
    if (loop) return {};
    return ghost::make_error(ghost::Code::unsupported, "use link loop", {},
                             "no peers in this process");
}

Result<std::unique_ptr<LinkEnd>> make_loop(const LinkSite& site) {
    GHOST_TRY(has_loop(site.loop));
    return make_packet_end(site, site.loop->make());
}

Result<std::unique_ptr<LinkEnd>> make_udp_alone(const LinkSite& site) {
    return make_packet_end(site, make_udp(site.connection));
}

Result<std::unique_ptr<LinkEnd>> make_udp_pair(const LinkSite& site) {
    return make_pair_end(site, "pair", make_udp(site.connection));
}

Status device_usable(const LoopHub*) {
    return netdevice_usable();
}

// Every frame is shown to every such socket of its interface, which with twice as many costs what
// the link gains on TCP. A peer may have found room where we have just closed as many, which takes
// the system its time.
constexpr size_t enough_sockets = 64;

bool device_crowded(bool by_peer) {
    return netdevice_sockets() >= (by_peer ? 2 : 1) * enough_sockets;
}

// What is chosen without being asked for must not make a stop longer.
Status few_frames_usable(const LoopHub*) {
    GHOST_TRY(net::closes_later());
    return netdevice_usable();
}

Result<std::unique_ptr<LinkEnd>> make_frames_alone(const LinkSite& site) {
    return make_packet_end(site, make_netdevice(site.connection, false));
}

Result<std::unique_ptr<LinkEnd>> make_frame_pair(const LinkSite& site) {
    return make_pair_end(site, "framepair", make_netdevice(site.connection, true));
}

Status ofi_usable_here(const LoopHub*) {
    return ofi_usable();
}

Result<std::unique_ptr<LinkEnd>> make_ofi_alone(const LinkSite& site) {
    return make_packet_end(site, make_ofi(site.connection));
}

}  // namespace

// clang-format off
const std::vector<LinkLine>& link_table() {
    static const std::vector<LinkLine> table = {
        // kind               name         reliable ordered max frame           zero-c. one-s. slow   crowded  needs
        {LinkKind::shm,       "shm",       true,    true,   wire::max_message,  false,  false, false, nullptr, "the same node",            nullptr,  make_shm_end},
        {LinkKind::tcp,       "tcp",       true,    true,   0,                  true,   false, false, nullptr, "IP",                       nullptr,  make_tcp_end},
        {LinkKind::udp,       "udp",       false,   false,  65'507,             false,  false, false, nullptr, "IP",                       nullptr,  make_udp_alone},
        {LinkKind::netdevice, "netdevice", false,   false,  UINT16_MAX,         false,  false, true,  device_crowded, "one Ethernet, CAP_NET_RAW", device_usable, make_frames_alone},
        {LinkKind::ofi,       "ofi",       true,    true,   32 * 1024,          false,  false, false, nullptr, "libfabric, IP",            ofi_usable_here, make_ofi_alone},
        {LinkKind::pair,      "pair",      true,    true,   0,                  true,   false, false, nullptr, "IP",                       nullptr,  make_udp_pair},
        {LinkKind::framepair, "framepair", true,    true,   0,                  true,   false, true,  device_crowded, "one Ethernet, CAP_NET_RAW, Linux 6.9", few_frames_usable, make_frame_pair},
        {LinkKind::loop,      "loop",      false,   true,   16 * 1024,          false,  false, false, nullptr, "the same process",         has_loop, make_loop},
    };
    return table;
}
// clang-format on

const LinkLine* find_link(wire::LinkKind kind) {
    for (const LinkLine& line : link_table()) {
        if (line.kind == kind) return &line;
    }
    return nullptr;
}

Result<LinkWish> parse_links(const std::string& names) {
    LinkWish out;
    std::string known = " auto";
    std::istringstream list(names);
    for (std::string name; std::getline(list, name, ',');) {
        if (name == "auto") {
            out.measured = true;
            continue;
        }
        const LinkLine* found = nullptr;
        for (const LinkLine& line : link_table()) {
            if (name == line.name) found = &line;
        }
        if (!found) {
            for (const LinkLine& line : link_table()) known += std::string(" ") + line.name;
            return ghost::make_error(ghost::Code::invalid, "choose link", name,
                                     "there are" + known);
        }
        out.lines.push_back(found);
    }
    if (out.measured && out.lines.empty()) {
        out.lines = {find_link(LinkKind::framepair), find_link(LinkKind::pair)};
    }
    return out;
}

}  // namespace kernet
