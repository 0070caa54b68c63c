// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/unix_sockets.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>

#include "base/fd.hpp"
#include "ghost-core/format/services.hpp"

namespace ghost::core {
namespace {

std::string readable_name(const rtattr* attribute) {
    std::string out(static_cast<const char*>(RTA_DATA(attribute)), RTA_PAYLOAD(attribute));
    if (out.starts_with('\0')) {
        out[0] = '@';
        return out;
    }
    return out.substr(0, out.find('\0'));
}

void read_answer(const nlmsghdr* header, std::map<uint64_t, UnixSocket>& out) {
    const auto* socket = static_cast<const unix_diag_msg*>(NLMSG_DATA(header));
    auto* attribute = reinterpret_cast<const rtattr*>(socket + 1);
    auto left = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof *socket));
    auto& one = out[socket->udiag_ino];
    const auto number = [](const void* at) {
        uint32_t value = 0;
        std::memcpy(&value, at, sizeof value);
        return value;
    };
    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        const auto* data = static_cast<const char*>(RTA_DATA(attribute));
        if (attribute->rta_type == UNIX_DIAG_NAME) one.name = readable_name(attribute);
        if (attribute->rta_type == UNIX_DIAG_PEER && number(data) != 0) one.peer = number(data);
        if (attribute->rta_type == UNIX_DIAG_ICONS)
            for (size_t at = 0; at + sizeof(uint32_t) <= RTA_PAYLOAD(attribute);
                 at += sizeof(uint32_t))
                out[number(data + at)].peer = socket->udiag_ino;
    }
}

}  // namespace

std::map<uint64_t, UnixSocket> unix_sockets() {
    std::map<uint64_t, UnixSocket> out;
    const Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    struct {
        nlmsghdr header;
        unix_diag_req request;
    } ask{};
    ask.header = {sizeof ask, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0};
    ask.request.sdiag_family = AF_UNIX;
    ask.request.udiag_states = ~0U;
    ask.request.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS;
    if (!fd || send(fd.get(), &ask, sizeof ask, 0) != sizeof ask) return out;
    alignas(nlmsghdr) std::array<char, 32768> buffer;
    for (;;) {
        auto left = recv(fd.get(), buffer.data(), buffer.size(), 0);
        if (left <= 0) return out;
        const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data());
        for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) return out;
            read_answer(header, out);
        }
    }
}

std::string name_of_peer(const std::map<uint64_t, UnixSocket>& all, uint64_t inode) {
    const auto found = all.find(inode);
    const auto peer = found == all.end() ? all.end() : all.find(found->second.peer);
    return peer == all.end() ? "" : peer->second.name;
}

Refusal why_not_closed(const std::string& name) {
    const auto* service = service_at(name);
    if (service == nullptr) return Reason::outer_end;
    if (service->cure == nullptr) return {};
    return {Reason::service, service->name, service->cure};
}

Result<bool> LeftBehind::operator()(uint64_t inode) {
    if (std::ranges::count(externals_, fmt::format("unix[{}]", inode)) != 0) return false;
    if (!all_) all_ = unix_sockets();
    const auto why = why_not_closed(name_of_peer(*all_, inode));
    if (!why) return true;
    return because(Code::refused, why.of(fmt::format("socket unix {}", inode)));
}

}  // namespace ghost::core
