// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/common/cluster.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <set>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include "base/child.hpp"
#include "base/json.hpp"

namespace ghost::bench {
namespace {

constexpr int lab_limit_s = 60;
constexpr int exec_limit_s = 20;
constexpr const char* table = "ghost_bench";
constexpr const char* families[] = {"ip", "netdev"};  // the table is in both

Status expect_success(const std::vector<std::string>& argv, int limit_s, const std::string& tried) {
    auto ended = run(argv, limit_s);
    if (!ended.ok()) return ended.error();
    if (ended->status == 0) return {};
    return make_error(Code::io, tried, {},
                      fmt::format("exit status {}\n{}", ended->status, ended->output));
}

// Segments without data that do not open a connection, by the length of their options: what is left
// of a connection that one side has closed is acknowledged, ended and refused by such.
std::string empty_segments() {
    constexpr int least_words = 5, most_words = 15;
    std::string text;
    for (int words = least_words; words <= most_words; ++words)
        text += fmt::format(
            "ip hdrlength 5 ip length {} tcp doff {} tcp flags & syn == 0 counter name ending "
            "accept; ",
            4 * (least_words + words), words);
    return text;
}

}  // namespace

std::string traffic_rules(const std::vector<int>& ports) {
    const std::string set = fmt::format("{{ {} }}", fmt::join(ports, ", "));
    const char* chain =
        "  chain {0} {{ type filter hook {0} priority 0; {1}{2}{3} counter name other; }}\n";
    auto control = [&](const char* end) {
        return ports.empty() ? std::string()
                             : fmt::format("tcp {} {} counter name control accept; ", end, set);
    };
    const std::string empty = empty_segments();
    const char* frames =
        "  chain {0} {{ type filter hook {0} device eth0 priority 0; {1}ether type 0x88b5 counter "
        "name other; }}\n";
    return fmt::format(
               "table ip {} {{\n  counter control {{ }}\n  counter ending {{ }}\n"
               "  counter other {{ }}\n",
               table) +
           fmt::format(fmt::runtime(chain), "input", control("dport"), empty, "ip version 4") +
           fmt::format(fmt::runtime(chain), "output", control("sport"), empty, "ip version 4") +
           "}\n" + fmt::format("table netdev {} {{\n  counter other {{ }}\n", table) +
           fmt::format(fmt::runtime(frames), "ingress", "meta pkttype host ") +
           fmt::format(fmt::runtime(frames), "egress", "") + "}\n";
}

Result<Traffic> traffic_of(const std::vector<std::string>& prefix) {
    Traffic traffic;
    for (const char* family : families) {
        std::vector<std::string> words = prefix;
        words.insert(words.end(), {"nft", "-j", "list", "counters", "table", family, table});
        auto listed = run(words, exec_limit_s);
        if (!listed.ok()) return listed.error();
        const auto json = nlohmann::json::parse(listed->output, nullptr, false);
        if (listed->status != 0 || !json.is_object() || !json.contains("nftables")) {
            return make_error(Code::io, "read the node's counters", {}, listed->output);
        }
        for (const auto& entry : json["nftables"]) {
            if (!entry.contains("counter")) continue;
            const auto& counter = entry["counter"];
            const auto name = counter.value("name", "");
            (name == "control"  ? traffic.control
             : name == "ending" ? traffic.ending
                                : traffic.other) += counter.value("bytes", int64_t{0});
        }
    }
    return traffic;
}

std::vector<int> daemon_ports(const std::string& sockets) {
    std::set<int> ports;
    std::istringstream lines(sockets);
    for (std::string line; std::getline(lines, line);) {
        if (line.find("(\"orted\"") == std::string::npos &&
            line.find("(\"sshd") == std::string::npos &&
            line.find("(\"mpirun\"") == std::string::npos &&
            line.find("(\"orterun\"") == std::string::npos) {
            continue;
        }
        // State Recv-Q Send-Q Local:Port Peer:Port Process
        std::istringstream fields(line);
        std::string skipped, local;
        fields >> skipped >> skipped >> skipped >> local;
        const size_t colon = local.rfind(':');
        if (colon != std::string::npos) ports.insert(std::atoi(local.c_str() + colon + 1));
    }
    ports.erase(0);
    return {ports.begin(), ports.end()};
}

Cluster::Cluster(std::string ghost, std::string name)
    : ghost_(std::move(ghost)), name_(std::move(name)) {}

Cluster::Cluster(Cluster&& other) noexcept
    : ghost_(std::move(other.ghost_)),
      name_(std::move(other.name_)),
      janitor_(std::exchange(other.janitor_, -1)),
      lifeline_(std::move(other.lifeline_)) {}

Cluster::~Cluster() {
    if (janitor_ < 0) return;
    lifeline_.reset();
    while (waitpid(janitor_, nullptr, 0) < 0 && errno == EINTR) continue;
}

// In a session of its own, so that a terminal's Ctrl-C does not end it; nothing but us has the
// other end of its input.
Status Cluster::hire_janitor() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return sys_error("make a pipe");
    const Fd input(ends[0]);
    lifeline_.reset(ends[1]);
    auto janitor = Child::start(
        {.argv = {"sh", "-c", "cat; exec \"$0\" lab down --name \"$1\"", ghost_, name_},
         .stdio = {input.get(), inherited, inherited},
         .place = ChildRequest::Place::own_session,
         .signals = ChildRequest::Signals::kept});
    if (!janitor) return janitor.error();
    janitor_ = janitor->release();
    return {};
}

Result<Cluster> Cluster::up(const std::string& ghost, const std::string& name, int nodes) {
    Cluster cluster(ghost, name);
    GHOST_TRY(cluster.hire_janitor());
    GHOST_TRY(expect_success({ghost, "lab", "up", "--name", name, "-n", std::to_string(nodes)},
                             lab_limit_s, "start the virtual cluster"));
    return cluster;
}

std::vector<std::string> Cluster::on(const std::string& node,
                                     const std::vector<std::string>& command) const {
    std::vector<std::string> argv{ghost_, "lab", "exec", "--name", name_, node};
    argv.insert(argv.end(), command.begin(), command.end());
    return argv;
}

Status Cluster::link_verb(const char* verb, const std::string& node,
                          const std::string& value) const {
    std::vector<std::string> words{ghost_, "lab", verb, "--name", name_, node};
    if (!value.empty()) words.push_back(value);
    return expect_success(words, exec_limit_s, fmt::format("{} node {}", verb, node));
}

Status Cluster::cut(const std::string& node) const {
    return link_verb("cut", node);
}
Status Cluster::heal(const std::string& node) const {
    return link_verb("heal", node);
}
Status Cluster::shape(const std::string& node, const std::string& rate) const {
    return link_verb("shape", node, rate);
}

Result<std::string> Cluster::address(const std::string& node) const {
    auto ended = run(on(node, {"getent", "ahostsv4", node}), exec_limit_s);
    if (!ended.ok()) return ended.error();
    const std::string address = ended->output.substr(0, ended->output.find(' '));
    if (ended->status == 0 && !address.empty()) return address;
    return make_error(Code::not_found, "find the address of", node, ended->output);
}

Status Cluster::count_traffic(const std::string& node) const {
    auto sockets = run(on(node, {"ss", "-Htanp"}), exec_limit_s);
    if (!sockets.ok()) return sockets.error();
    if (sockets->status != 0) return make_error(Code::io, "list sockets on", node);
    return expect_success(on(node, {"nft", traffic_rules(daemon_ports(sockets->output))}),
                          exec_limit_s, "count traffic on " + node);
}

Result<Traffic> Cluster::traffic(const std::string& node) const {
    return traffic_of(on(node, {}));
}

Status Cluster::forget_traffic(const std::string& node) const {
    for (const char* family : families)
        GHOST_TRY(expect_success(on(node, {"nft", "delete", "table", family, table}), exec_limit_s,
                                 "remove the counters on " + node));
    return {};
}

}  // namespace ghost::bench
