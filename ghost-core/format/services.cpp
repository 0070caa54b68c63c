// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/services.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fnmatch.h>
#include <iterator>

namespace ghost::core {
namespace {

constexpr const char* leave_bus = "disconnect it from the bus";
constexpr const char* leave_agent = "let it ask the agent before, or start it without one";
constexpr const char* leave_display = "close its windows, or start it without a display";

// What a client does that finds its connection closed: syslog(3) of glibc and nss_sss connect anew
// and ask once more; nscd's and nslcd's clients, libmunge, nss-systemd and nss_mdns connect for
// each question. What else is listed keeps state of its connection.
constexpr Service services[] = {
    {"/dev/log", "syslog", nullptr},
    {"/run/systemd/journal/dev-log", "syslog", nullptr},
    {"/run/systemd/journal/syslog", "syslog", nullptr},
    {"/run/rsyslog/*", "syslog", nullptr},
    {"/run/systemd/journal/socket", "the journal", nullptr},
    {"/run/nscd/socket", "nscd", nullptr},
    {"/var/lib/sss/pipes/*", "sssd", nullptr},
    {"/run/nslcd/socket", "nslcd", nullptr},
    {"/run/systemd/userdb/*", "systemd's user database", nullptr},
    {"/run/munge/*", "munge", nullptr},
    {"/run/avahi-daemon/socket", "avahi", nullptr},
    {"/run/systemd/journal/stdout", "the journal", "send its output to a file or a pipe"},
    {"/run/dbus/*", "D-Bus", leave_bus},
    {"/run/user/*/bus", "D-Bus", leave_bus},
    {"@*/dbus-*", "D-Bus", leave_bus},
    {"/tmp/dbus-*", "D-Bus", leave_bus},
    {"*/ssh-*/agent.*", "an ssh agent", leave_agent},
    {"/run/user/*/keyring/*", "a key ring", leave_agent},
    {"*/S.gpg-agent*", "a gpg agent", leave_agent},
    {"*/.X11-unix/X*", "the X server", leave_display},
    {"/run/user/*/wayland-*", "the Wayland server", leave_display},
};

// Of the head of each: nscd's gc_cycle (of one that is being changed), nscd_certainly_running and
// timestamp (nscd/nscd-client.h of glibc); sssd's status (util/mmap_cache.h: RECYCLED).
constexpr struct {
    const char* place;
    unsigned offset;
    const char* old;  // hex digits
} copies[] = {
    {"/var/cache/nscd/*", 8, "ffffffff000000000000000000000000"},
    {"/var/db/nscd/*", 8, "ffffffff000000000000000000000000"},
    {"/run/nscd/*", 8, "ffffffff000000000000000000000000"},
    {"/var/lib/sss/mc/*", 12, "00000000"},
};

bool matches(const char* place, const std::string& name) {
    return fnmatch(place, name.c_str(), 0) == 0;
}

}  // namespace

const Service* service_at(const std::string& socket) {
    // /var/run leads to /run, and a name is what its owner called it
    const auto name = socket.starts_with("/var/run/") ? socket.substr(4) : socket;
    const auto* const found = std::ranges::find_if(
        services, [&](const Service& one) { return matches(one.place, name); });
    return found == std::end(services) ? nullptr : found;
}

bool is_shared_copy(const std::string& path) {
    return std::ranges::any_of(copies, [&](const auto& one) { return matches(one.place, path); });
}

std::string shared_copies() {
    std::string out;
    for (const auto& one : copies) out += fmt::format("{} {} {}\n", one.place, one.offset, one.old);
    return out;
}

}  // namespace ghost::core
