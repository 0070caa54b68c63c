// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/figures/streams.hpp"

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <random>

#include "base/clock.hpp"
#include "benchmarks/common/plot.hpp"

namespace ghost::bench {
namespace {

namespace fs = std::filesystem;

constexpr int64_t second_us = 1'000'000;
constexpr int64_t limit_us = 180 * second_us;
constexpr const char* manager_name = "@kernet-figures";

std::string random_secret() {
    std::random_device random;
    std::string hex;
    for (int i = 0; i < 8; ++i) hex += fmt::format("{:08x}", random());
    return hex + "\n";
}

Status write_private(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
    std::error_code failed;
    fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write, failed);
    return failed ? make_error(Code::io, "write", path) : Status();
}

// Until a line has it; everything printed is in the error.
Status wait_for_line(Command& command, const std::string& word, const std::string& who) {
    std::string output;
    auto ended = command.follow(
        [&](const std::string& line) {
            output += line + "\n";
            return line.find(word) == std::string::npos;
        },
        monotonic_us() + 20 * second_us);
    if (!ended.ok()) return ended.error();
    return *ended ? because(Code::io, who + " ended:\n" + output) : Status();
}

// All it prints, after it has ended well.
Result<std::vector<std::string>> lines_of(Command& command, const char* who) {
    std::vector<std::string> lines;
    const int64_t deadline = monotonic_us() + limit_us;
    auto ended = command.follow(
        [&](const std::string& line) {
            lines.push_back(line);
            return true;
        },
        deadline);
    if (!ended.ok()) return ended.error();
    auto status = command.wait(deadline);
    if (!status.ok()) return status.error();
    if (*status == 0) return lines;
    return because(Code::io, fmt::format("kernet_speed {} ended with {}:\n{}", who, *status,
                                         fmt::join(lines, "\n")));
}

}  // namespace

Result<std::unique_ptr<Folder>> Folder::make() {
    // not /tmp: every node has its own
    std::string path = "/var/tmp/ghost-figures-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) return sys_error("make a folder in", "/var/tmp");
    return std::unique_ptr<Folder>(new Folder(path));
}

Folder::~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

Result<std::string> Folder::sub() {
    const std::string path = fmt::format("{}/{}", path_, subs_++);
    std::error_code failed;
    if (!fs::create_directory(path, failed)) return make_error(Code::io, "make folder", path);
    return path;
}

Result<StreamNodes> StreamNodes::up(const Cluster& cluster, Folder& folder) {
    StreamNodes nodes(cluster, folder);
    std::string list;
    for (const char* node : {"gn1", "gn2"}) {
        auto address = cluster.address(node);
        if (!address.ok()) return address.error();
        list += fmt::format("{} {} 7911\n", node, *address);
        nodes.address_ = *address;
    }
    const std::string file = folder.path() + "/nodes", secret = folder.path() + "/secret";
    GHOST_TRY(write_private(file, list));
    GHOST_TRY(write_private(secret, random_secret()));
    for (const char* node : {"gn1", "gn2"}) {
        auto manager = Command::start(
            cluster.on(node, {built("kernet-btl/kernetd/kernetd"), "--node", node, "--nodes", file,
                              "--secret", secret, "--socket", manager_name}));
        if (!manager.ok()) return manager.error();
        nodes.managers_.push_back(std::move(*manager));
    }
    for (Command& manager : nodes.managers_) GHOST_TRY(wait_for_line(manager, "ready", "kernetd"));
    return nodes;
}

Result<Command> StreamNodes::start(const char* role, Kind kind, const std::string& node,
                                   const std::string& folder, const std::string& address,
                                   const std::vector<std::string>& options) const {
    std::vector<std::string> words{"env",
                                   std::string("KERNET_MANAGER=") + manager_name,
                                   built("benchmarks/kernet/kernet_speed"),
                                   role,
                                   option_of(kind),
                                   folder,
                                   address};
    words.insert(words.end(), options.begin(), options.end());
    return Command::start(cluster_.on(node, words));
}

Result<Curve> StreamNodes::measure(Kind kind, const Wire& wire, Sizes sizes, int turns,
                                   int budget_ms) {
    auto folder = folder_.sub();
    if (!folder.ok()) return folder.error();
    const std::string node = wire.rate ? "gn2" : "gn1";
    const std::string address = wire.rate ? address_ : "127.0.0.1";
    auto pong = start("pong", kind, node, *folder, address);
    if (!pong.ok()) return pong.error();
    auto ping =
        start("ping", kind, "gn1", *folder, address,
              {"--lower", std::to_string(sizes.lower), "--upper", std::to_string(sizes.upper),
               "--turns", std::to_string(turns), "--budget", std::to_string(budget_ms)});
    if (!ping.ok()) return ping.error();
    auto lines = lines_of(*ping, "ping");
    if (!lines.ok()) return lines.error();
    if (auto other = lines_of(*pong, "pong"); !other.ok()) return other.error();
    Curve curve;
    for (const std::string& line : *lines)
        if (auto sample = parse_ping(line)) curve[sample->bytes] = sample->usec;
    return curve;
}

Result<std::vector<double>> StreamNodes::together(const std::vector<Kind>& kinds, double seconds) {
    std::vector<Command> pours, drains;
    for (Kind kind : kinds) {
        auto folder = folder_.sub();
        if (!folder.ok()) return folder.error();
        auto drain = start("drain", kind, "gn2", *folder, address_);
        if (!drain.ok()) return drain.error();
        auto pour = start("pour", kind, "gn1", *folder, address_,
                          {"--seconds", fmt::format("{:.1f}", seconds)});
        if (!pour.ok()) return pour.error();
        drains.push_back(std::move(*drain));
        pours.push_back(std::move(*pour));
    }
    std::vector<std::vector<Come>> streams;
    for (Command& drain : drains) {
        auto lines = lines_of(drain, "drain");
        if (!lines.ok()) return lines.error();
        streams.emplace_back();
        for (const std::string& line : *lines)
            if (auto come = parse_drain(line)) streams.back().push_back(*come);
    }
    for (Command& pour : pours)
        if (auto ended = lines_of(pour, "pour"); !ended.ok()) return ended.error();
    auto rates = rates_together(streams);
    if (rates.empty()) return make_error(Code::io, "compare streams that were not on together");
    return rates;
}

}  // namespace ghost::bench
