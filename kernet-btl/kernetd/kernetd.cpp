// SPDX-License-Identifier: BSD-3-Clause
// kernetd: the stream manager of a node for programs outside MPI. It carries no data: streams go on
// while it is away, but none is created, attached, suspended or woken by this node's processes.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <getopt.h>
#include <iterator>
#include <sstream>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <utility>

#include "base/log.hpp"
#include "base/loop.hpp"
#include "kernet-btl/streams/manager.hpp"

namespace {

using ghost::Code;
using ghost::make_error;
using ghost::Result;
using ghost::Status;

constexpr const char* usage =
    "usage: kernetd --node NAME --nodes FILE --secret FILE [OPTION]...\n"
    "The stream manager of a node (see docs/KERNET.md).\n"
    "  --node NAME         name of this node in the list of nodes\n"
    "  --nodes FILE        list of nodes, identical on all of them: lines of NAME ADDRESS PORT\n"
    "  --secret FILE       64 hex digits, identical on all nodes; mode 0600\n"
    "  --cluster NAME      separates clusters that use the same secret (default: kernet)\n"
    "  --socket ADDRESS    where programs connect: a path or @NAME (default: $KERNET_MANAGER,\n"
    "                      else kernet.sock in this user's own folder)\n"
    "  --interfaces LIST   interfaces or CIDR nets for data (default: all but loopback)\n"
    "  --filters CHAIN     filters for all messages (docs/FILTERS.md), identical on all nodes\n"
    "  --grace SECONDS     how long a node may be unreachable before its sockets are lost\n"
    "                      (default: 5)\n"
    "  --help              print this and exit\n"
    "Runs in the foreground until SIGTERM or SIGINT; prints one line when it is ready.\n";

struct Options {
    std::string node, nodes, secret, cluster = "kernet", address, interfaces, filters;
    double grace = 5;
    bool help = false;
};

Result<Options> read_options(int argc, char** argv) {
    static const option known[] = {{"node", 1, nullptr, 'n'},    {"nodes", 1, nullptr, 'N'},
                                   {"secret", 1, nullptr, 's'},  {"cluster", 1, nullptr, 'c'},
                                   {"socket", 1, nullptr, 'a'},  {"interfaces", 1, nullptr, 'i'},
                                   {"filters", 1, nullptr, 'f'}, {"grace", 1, nullptr, 'g'},
                                   {"help", 0, nullptr, 'h'},    {nullptr, 0, nullptr, 0}};
    Options options;
    options.address = kernet::default_manager_address();
    for (int c; (c = getopt_long(argc, argv, "h", known, nullptr)) != -1;) {
        switch (c) {
            case 'n':
                options.node = optarg;
                break;
            case 'N':
                options.nodes = optarg;
                break;
            case 's':
                options.secret = optarg;
                break;
            case 'c':
                options.cluster = optarg;
                break;
            case 'a':
                options.address = optarg;
                break;
            case 'i':
                options.interfaces = optarg;
                break;
            case 'f':
                options.filters = optarg;
                break;
            case 'g':
                options.grace = std::strtod(optarg, nullptr);
                break;
            case 'h':
                options.help = true;
                break;
            default:
                return make_error(Code::invalid, "understand the options");
        }
    }
    if (!options.help && (options.node.empty() || options.nodes.empty() || options.secret.empty() ||
                          options.grace <= 0 || optind != argc)) {
        return make_error(Code::invalid, "understand the options");
    }
    return options;
}

Result<std::vector<kernet::NodeAddress>> read_nodes(const std::string& path) {
    std::ifstream file(path);
    if (!file) return ghost::sys_error("read the nodes", path);
    std::vector<kernet::NodeAddress> nodes;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line.substr(0, line.find('#')));
        kernet::NodeAddress node;
        if (!(words >> node.name)) continue;
        if (!(words >> node.at.host >> node.at.port)) {
            return make_error(Code::invalid, "read the nodes", path, "NAME ADDRESS PORT expected");
        }
        nodes.push_back(std::move(node));
    }
    return nodes;
}

Result<std::string> read_secret(const std::string& path) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) return ghost::sys_error("read the secret", path);
    if ((status.st_mode & 077) != 0) {
        return make_error(Code::refused, "use the secret in", path,
                          "others can read it (chmod 600)");
    }
    std::ifstream file(path);
    std::string secret;
    if (!(file >> secret)) return make_error(Code::invalid, "read the secret", path);
    return secret;
}

Status run(kernet::Manager& manager, kernet::TcpChannel& channel, const std::string& node) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    const ghost::Fd ends(signalfd(-1, &signals, SFD_CLOEXEC));
    bool said = false;
    const auto serve = [&] {
        channel.service();
        manager.service();
        if (!manager.settled() || std::exchange(said, true)) return;
        fmt::print("kernetd: {} is ready\n", node);
        std::fflush(stdout);
    };
    ghost::Loop loop;
    const auto on_end = loop.on_readable(ends.get(), [&] { loop.stop(); });
    const auto on_process = loop.on_readable(manager.fd(), serve);
    const auto on_node = loop.on_readable(channel.fd(), serve);
    GHOST_TRY(loop.run());
    channel.leave();
    return {};
}

Status begin(const Options& options) {
    auto nodes = read_nodes(options.nodes);
    if (!nodes) return nodes.error();
    auto secret = read_secret(options.secret);
    if (!secret) return secret.error();
    kernet::ManagerConfig config;
    config.self = -1;
    for (const auto& node : *nodes) {
        if (node.name == options.node) config.self = static_cast<int>(config.node_names.size());
        config.node_names.push_back(node.name);
    }
    if (config.self < 0) return make_error(Code::not_found, "find this node", options.node);
    config.cluster = options.cluster;
    config.secret_hex = *secret;
    config.address = options.address;
    config.if_include = options.interfaces;
    config.filters = options.filters;
    config.grace_us = static_cast<int64_t>(options.grace * 1e6);
    auto manager = kernet::Manager::create(config);
    if (!manager) return manager.error();
    kernet::TcpChannelConfig net;
    net.self = config.self;
    net.nodes = *nodes;
    net.cluster = options.cluster;
    net.secret_hex = *secret;
    auto channel = kernet::TcpChannel::create(net, **manager);
    if (!channel) return channel.error();
    (*manager)->set_channel(channel->get());
    Status served = run(**manager, **channel, options.node);
    (*manager)->set_channel(nullptr);
    return served;
}

}  // namespace

int main(int argc, char** argv) {
    auto options = read_options(argc, argv);
    if (!options) {
        std::fputs(usage, stderr);
        return 2;
    }
    if (options->help) {
        std::fputs(usage, stdout);
        return 0;
    }
    ghost::log::setup("kernetd " + options->node, ghost::log::level_from_environment());
    const Status done = begin(*options);
    if (done) return 0;
    fmt::print(stderr, "kernetd: {}\n", done.error().message());
    return done.error().code == Code::invalid ? 2 : 1;
}
