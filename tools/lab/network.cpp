// SPDX-License-Identifier: BSD-3-Clause
#include "tools/lab/network.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/clock.hpp"
#include "base/json_member.hpp"
#include "base/json_text.hpp"
#include "base/pidfd.hpp"

namespace ghost::tools::lab {
namespace {

constexpr const char* netns_folder = "/run/netns";  // ip-netns(8)
constexpr int64_t kill_limit_us = 10'000'000;

// Parts of "ghost-LAB-NODE"; the lab's name may itself hold '-'.
struct Split {
    std::string lab, node;
};

bool is_node_name(const std::string& text) {
    if (text == "switch") return true;
    return text.size() > 2 && text.compare(0, 2, "gn") == 0 &&
           std::all_of(text.begin() + 2, text.end(),
                       [](unsigned char c) { return std::isdigit(c); });
}

bool split_name(const std::string& name, Split& out) {
    size_t last = name.rfind('-');
    if (name.compare(0, 6, "ghost-") != 0 || last <= 6 || last == std::string::npos) return false;
    out = {name.substr(6, last - 6), name.substr(last + 1)};
    return is_valid_name(out.lab) && is_node_name(out.node);
}

template <typename F>
void each_namespace(F&& action) {
    std::error_code ec;
    for (const auto& entry : std::filesystem::directory_iterator(netns_folder, ec)) {
        Split split;
        if (split_name(entry.path().filename(), split)) action(split);
    }
}

// Bits per second; 0 for "none", negative for nonsense. Units are tc(8)'s decimal ones.
double rate_bits(const std::string& rate) {
    if (rate == "none") return 0;
    if (rate == "fast-ethernet") return 100e6;
    if (rate == "gigabit") return 1e9;
    if (rate == "10g") return 10e9;
    char* end = nullptr;
    double value = std::strtod(rate.c_str(), &end);
    if (end == rate.c_str() || !std::isfinite(value) || value <= 0) return -1;
    std::string unit = end;
    if (unit == "kbit") return value * 1e3;
    if (unit == "mbit") return value * 1e6;
    if (unit == "gbit") return value * 1e9;
    return -1;
}

// Sends SIGKILL to the process if it still is in the namespace once we hold it by descriptor.
void kill_if_inside(pid_t pid, const std::string& lab, const std::string& node) {
    const Fd fd = open_pidfd(pid);
    if (!fd.valid() || !is_inside(pid, lab, node)) return;
    signal_pidfd(fd.get(), SIGKILL);
    await_pidfd(fd.get(), 1000);
}

Status kill_inside(const std::string& lab, const std::string& node) {
    int64_t limit = monotonic_us() + kill_limit_us;
    for (;;) {
        bool found = false;
        std::error_code ec;
        for (const auto& entry : std::filesystem::directory_iterator("/proc", ec)) {
            pid_t pid = std::atoi(entry.path().filename().c_str());
            if (pid <= 0 || !is_inside(pid, lab, node)) continue;
            found = true;
            kill_if_inside(pid, lab, node);
        }
        if (!found) return {};
        if (monotonic_us() > limit) {
            return make_error(Code::timeout, "end the processes in", namespace_name(lab, node));
        }
    }
}

}  // namespace

std::string namespace_name(const std::string& lab, const std::string& node) {
    return "ghost-" + lab + "-" + node;
}

std::string namespace_path(const std::string& lab, const std::string& node) {
    return std::string(netns_folder) + "/" + namespace_name(lab, node);
}

std::set<std::string> labs_with_namespaces() {
    std::set<std::string> out;
    each_namespace([&](const Split& split) { out.insert(split.lab); });
    return out;
}

std::vector<std::string> namespaces_of(const std::string& lab) {
    std::vector<std::string> out;
    each_namespace([&](const Split& split) {
        if (split.lab == lab) out.push_back(split.node);
    });
    return out;
}

bool is_inside(pid_t pid, const std::string& lab, const std::string& node) {
    struct stat mine {
    }, wanted{};
    return ::stat(fmt::format("/proc/{}/ns/net", pid).c_str(), &mine) == 0 &&
           ::stat(namespace_path(lab, node).c_str(), &wanted) == 0 &&
           mine.st_ino == wanted.st_ino && mine.st_dev == wanted.st_dev;
}

Status make_switch(const std::string& lab) {
    std::string name = namespace_name(lab, "switch");
    GHOST_TRY(run_checked({"ip", "netns", "add", name}));
    GHOST_TRY(run_checked({"ip", "-n", name, "-batch", "-"},
                          "link set lo up\n"
                          "link add br0 type bridge forward_delay 0 mcast_snooping 0\n"
                          "link set br0 up\n"));
    return {};
}

Status make_link(const std::string& lab, const NodeState& node) {
    std::string hub = namespace_name(lab, "switch");
    std::string own = namespace_name(lab, node.name());
    GHOST_TRY(run_checked({"ip", "netns", "add", own}));
    // The switch's end may be left of a node that died while it was being made.
    GHOST_TRY(run_program({"ip", "-n", hub, "link", "del", node.name()}));
    GHOST_TRY(run_checked(
        {"ip", "-n", hub, "-batch", "-"},
        // The same hardware address for ever: a node that comes back is found by those who knew it.
        fmt::format(
            "link add {0} type veth peer name eth0 netns {1} address 02:67:6e:00:{2:02x}:{3:02x}\n"
            "link set {0} master br0 up\n",
            node.name(), own, node.index >> 8 & 0xff, node.index & 0xff)));
    GHOST_TRY(run_checked({"ip", "-n", own, "-batch", "-"},
                          fmt::format("link set lo up\naddr add {}/24 brd + dev eth0\n"
                                      "link set eth0 up\n",
                                      node.address())));
    return node.rate == "none" ? Status() : shape_link(lab, node);
}

Status remove_namespace(const std::string& lab, const std::string& node) {
    std::string path = namespace_path(lab, node);
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) return {};
    GHOST_TRY(kill_inside(lab, node));
    // Not by ip-netns: it fails on a name whose mount is gone already.
    while (::umount2(path.c_str(), MNT_DETACH) == 0) {
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return sys_error("remove", path);
    return {};
}

Link link_state(const std::string& lab, const NodeState& node) {
    auto text = run_checked(
        {"ip", "-n", namespace_name(lab, "switch"), "-json", "link", "show", "dev", node.name()});
    if (!text.ok()) return Link::absent;
    const Json links = parse_json(*text);
    if (!links.is_array() || links.empty()) return Link::absent;
    const Json flags = list_in(links[0], "flags");
    return std::find(flags.begin(), flags.end(), "UP") != flags.end() ? Link::up : Link::cut;
}

Status set_link(const std::string& lab, const NodeState& node, bool up) {
    GHOST_TRY(run_checked({"ip", "-n", namespace_name(lab, "switch"), "link", "set", node.name(),
                           up ? "up" : "down"}));
    return {};
}

bool is_valid_rate(const std::string& rate) {
    return rate_bits(rate) >= 0;
}

Status shape_link(const std::string& lab, const NodeState& node) {
    double bits = rate_bits(node.rate);
    if (bits < 0) return make_error(Code::invalid, "use as a rate:", node.rate);
    // A real card sends no burst ahead of its rate: two packets, or what 200 µs let through, which
    // is what the kernel's timer needs; the queue holds 50 ms. What comes to the switch's port has
    // that rate already unless several send at once: 4 ms there, or what the timers of both ends
    // lose adds up (figures for 1 to 8 ms: docs/PERFORMANCE.md, "Gigabit there").
    struct End {
        std::string where, device;
        double burst_s;
    };
    for (const auto& [where, device, burst_s] :
         {End{"switch", node.name(), 4e-3}, End{node.name(), "eth0", 200e-6}}) {
        std::string name = namespace_name(lab, where);
        const auto burst = static_cast<uint64_t>(std::max(3028.0, bits / 8 * burst_s));
        if (bits == 0) {
            GHOST_TRY(run_program({"tc", "-n", name, "qdisc", "del", "dev", device, "root"}));
            continue;
        }
        GHOST_TRY(run_checked({"tc", "-n", name, "qdisc", "replace", "dev", device, "root", "tbf",
                               "rate", fmt::format("{:.0f}bit", bits), "burst",
                               std::to_string(burst), "latency", "50ms"}));
    }
    return {};
}

}  // namespace ghost::tools::lab
