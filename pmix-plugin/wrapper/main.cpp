// SPDX-License-Identifier: BSD-3-Clause
// ghost-wrapper: the parent of every rank's process tree (the runtime's fork agent).
//
//   ghost-wrapper PROGRAM [ARGUMENT…]                        starts a rank's program
//   GHOST_RESTART=FOLDER ghost-wrapper PROGRAM …             goes on from a snapshot instead
//   ghost-wrapper --restore --rank R --job J --control-fd 3  makes a rank from a ghost
//   ghost-wrapper --adopt --rank R --init PID --control-fd 3 goes on for a wrapper that died
//   ghost-wrapper --copy --control-fd 3                      copies ghosts from node to node
//
// What it does for a living rank is in supervisor.hpp; messages are in docs/PROTOCOL.md.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <cstdlib>
#include <fcntl.h>
#include <getopt.h>
#include <string>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include "base/addresses.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/paths.hpp"
#include "base/user_space.hpp"
#include "ghost-core/criu/tree.hpp"
#include "pmix-plugin/wrapper/copier.hpp"
#include "pmix-plugin/wrapper/restorer.hpp"
#include "pmix-plugin/wrapper/spawn.hpp"
#include "pmix-plugin/wrapper/supervisor.hpp"

namespace ghost::plugin {
namespace {

// The runtime has found the program, and hands us the name that the user gave: it looks for one
// without a folder in the working directory too, after PATH.
[[noreturn]] void become_program(char** program) {
    drop_ambient_capabilities();
    const std::string file = find_in_path(program[0], search_path() + ":.");
    execv(file.empty() ? program[0] : file.c_str(), program);
    std::fprintf(stderr, "ghost-wrapper: cannot execute %s: %s\n", program[0],
                 std::strerror(errno));
    _exit(127);
}

// A rank that cannot be moved is better than none: it runs as it would without us.
[[noreturn]] void run_unmovable(const Identity& who, const core::Signals& signals,
                                const ControlSocket& control, const Error& why, char** program) {
    log::info("rank {} is not movable: {}", who.rank, why.message());
    const WrapperHello hello = who.hello(WrapperMode::direct, 0, why.message());
    if (auto sent = control.send_text(schema::encode(hello)); !sent)
        log::info("{}", sent.error().message());
    signals.restore();
    become_program(program);
}

// The daemon of the job's life before, killed with mpirun or cut off, has its name for some
// seconds. Its processes may still write, so this life begins when it has ended.
constexpr int64_t former_life_us = 30'000'000, no_daemon_us = 5'000'000, tell_after_us = 1'000'000;
constexpr useconds_t retry_us = 2'000;  // as the new daemon tries to get its name

Result<ControlSocket> connect_after_former_life(const Identity& who) {
    const char* local = std::getenv("OMPI_COMM_WORLD_LOCAL_RANK");
    bool told = local != nullptr && std::string_view(local) != "0";  // one of a node is enough
    const int64_t begun = monotonic_us();
    for (int64_t now = begun, answered = begun;; now = monotonic_us()) {
        auto control = ControlSocket::connect(who.node_socket);
        if (control && control->peer_pid() == getppid()) return control;
        if (control) answered = now;
        if (!control && now - answered > no_daemon_us) return control.error();
        if (now - begun > former_life_us)
            return make_error(Code::busy, "reach the node agent at", who.node_socket,
                              "another process of yours has that name and does not end");
        if (now - begun > tell_after_us && !std::exchange(told, true))
            std::fprintf(stderr,
                         "ghost-wrapper: rank %u waits until the daemon that served the job's "
                         "ranks here before has ended\n",
                         who.rank);
        usleep(retry_us);
    }
}

[[noreturn]] void cannot_restart(uint32_t rank, const Error& why) {
    std::fprintf(stderr, "ghost-wrapper: cannot restart rank %u on %s: %s\n", rank,
                 host_name().c_str(), why.message().c_str());
    _exit(1);
}

// The rank goes on from a snapshot; nothing else may take its place.
int restart(Identity who, const std::string& folder) {
    const char* kept = std::getenv("GHOST_RESTART_KEEP");
    const char* signer = std::getenv("GHOST_RESTART_SIGNER");
    const uint32_t rank = who.rank;
    auto control = connect_after_former_life(who);
    if (!control) cannot_restart(rank, control.error());
    if (auto space = enter_own_user_space(); !space) cannot_restart(rank, space.error());
    auto signals = core::Signals::block();
    if (!signals) cannot_restart(rank, signals.error());
    auto guard = core::Guard::start({.stops = true});
    if (!guard) cannot_restart(rank, guard.error());
    Restorer restorer(std::move(who), *signals, std::move(*guard), std::move(*control),
                      std::make_unique<SnapshotSource>(folder, rank, kept != nullptr ? kept : "",
                                                       signer != nullptr ? signer : ""));
    auto rank_tree = restorer.run();
    if (!rank_tree) return 1;
    core::end_like(Supervisor(std::move(*rank_tree), *signals).run());
}

int run(char** program) {
    Identity who = Identity::from_environment();
    log::setup("wrapper of rank " + std::to_string(who.rank), log::level_from_environment());
    const char* snapshot = std::getenv("GHOST_RESTART");
    if (snapshot != nullptr && *snapshot != 0) return restart(std::move(who), snapshot);
    if (who.node_socket.empty()) become_program(program);
    auto control = ControlSocket::connect(who.node_socket);
    if (!control) {
        log::info("rank {} is not movable: {}", who.rank, control.error().message());
        become_program(program);
    }
    const Status space = enter_own_user_space();
    auto signals = core::Signals::block();
    if (!signals) become_program(program);
    if (!space) run_unmovable(who, *signals, *control, space.error(), program);
    auto stdio = Stdio::for_program();
    if (!stdio) run_unmovable(who, *signals, *control, stdio.error(), program);
    // before there is a tree that could be left behind
    auto guard = core::Guard::start({.stops = true});
    if (!guard) log::warning("{}", guard.error().message());
    auto root = spawn_program(who, *signals, *stdio, program);
    if (!root) {
        if (guard) guard->stop();
        run_unmovable(who, *signals, *control, root.error(), program);
    }
    if (guard) guard->watch(*root);
    stdio->close_rank_ends();
    RankTree rank_tree;
    rank_tree.who = std::move(who);
    rank_tree.root = *root;
    rank_tree.stdio = std::move(*stdio);
    if (guard) rank_tree.guard = std::move(*guard);
    rank_tree.control = std::move(*control);
    core::end_like(Supervisor(std::move(rank_tree), *signals).run());
}

struct Options {
    bool restore = false, adopt = false, copy = false;
    std::string job;
    pid_t init = 0;
    uint32_t rank = 0;
    int control_fd = 3;
};

// False: not a command line of ours.
bool parse(int argc, char** argv, Options& out) {
    static const option known[] = {{"restore", no_argument, nullptr, 'r'},
                                   {"adopt", no_argument, nullptr, 'a'},
                                   {"copy", no_argument, nullptr, 'k'},
                                   {"rank", required_argument, nullptr, 'n'},
                                   {"job", required_argument, nullptr, 'j'},
                                   {"init", required_argument, nullptr, 'i'},
                                   {"control-fd", required_argument, nullptr, 'c'},
                                   {nullptr, 0, nullptr, 0}};
    for (int c = 0; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        switch (c) {
            case 'r':
                out.restore = true;
                break;
            case 'a':
                out.adopt = true;
                break;
            case 'k':
                out.copy = true;
                break;
            case 'n':
                out.rank = static_cast<uint32_t>(std::atoi(optarg));
                break;
            case 'j':
                out.job = optarg;
                break;
            case 'i':
                out.init = std::atoi(optarg);
                break;
            case 'c':
                out.control_fd = std::atoi(optarg);
                break;
            default:
                return false;
        }
    }
    return optind == argc && out.restore + out.adopt + out.copy == 1;
}

Identity identity(const Options& options) {
    Identity who = Identity::from_environment();
    who.rank = options.rank;
    if (!options.job.empty()) who.job = options.job;
    log::setup("wrapper of rank " + std::to_string(who.rank), log::level_from_environment());
    return who;
}

int restore(const Identity& who, Status space, const core::Signals& signals, core::Guard guard,
            ControlSocket control) {
    Restorer restorer(who, signals, std::move(guard), std::move(control),
                      std::make_unique<ConnectedSource>(who, std::move(space)));
    auto rank_tree = restorer.run();
    if (!rank_tree) return restorer.was_given_up() ? 1 << 8 : 0;  // no rank's own end
    return Supervisor(std::move(*rank_tree), signals).run();
}

int adopt(const Identity& who, const core::Signals& signals, core::Guard guard,
          ControlSocket control) {
    constexpr int limit_ms = 10'000;
    auto message = control.receive(limit_ms);
    const auto order = message ? schema::decode<Adopt>(message->text) : message.error();
    const pid_t root = order ? order->init : 0;
    auto tree = core::list_tree(root > 0 ? root : getpid());
    if (root <= 0 || !tree) {
        log::error("there is no rank to adopt");
        return 1 << 8;
    }
    RankTree rank_tree;
    rank_tree.who = who;
    rank_tree.root = root;
    rank_tree.adopted = true;
    rank_tree.stdio = Stdio::adopt(std::move(message->fds),
                                   tree->size() > 1 ? (*tree)[1].pid : root, order->stdin_bytes);
    rank_tree.guard = std::move(guard);
    rank_tree.control = std::move(control);
    rank_tree.mode = WrapperMode::adopt;
    return Supervisor(std::move(rank_tree), signals).run();
}

int serve(const Options& options) {
    // The runtime signals a wrapper's process group; no-op if it made one.
    setpgid(0, 0);
    fcntl(options.control_fd, F_SETFD, FD_CLOEXEC);
    // Whatever else a daemon left open would keep another rank's output from ending.
    syscall(SYS_close_range, static_cast<unsigned>(options.control_fd) + 1, ~0u, 0u);
    ControlSocket control{Fd(options.control_fd)};
    if (options.copy) {
        log::setup("copier", log::level_from_environment());
        std::exit(copy_ghosts(std::move(control)));
    }
    Identity who = identity(options);
    const Status space =
        options.restore ? enter_own_user_space() : enter_user_space_of(options.init);
    if (!space && options.adopt) log::error("{}", space.error().message());
    auto signals = core::Signals::block();
    if (!signals) {
        log::error("{}", signals.error().message());
        return 1;
    }
    auto guard = core::Guard::start({.stops = true});
    if (!guard) log::warning("{}", guard.error().message());
    core::Guard keeper = guard ? std::move(*guard) : core::Guard();
    core::end_like(options.restore
                       ? restore(who, space, *signals, std::move(keeper), std::move(control))
                       : adopt(who, *signals, std::move(keeper), std::move(control)));
}

}  // namespace
}  // namespace ghost::plugin

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: ghost-wrapper PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    std::string_view first = argv[1];
    if (first == "--restore" || first == "--adopt" || first == "--copy") {
        ghost::plugin::Options options;
        if (ghost::plugin::parse(argc, argv, options)) return ghost::plugin::serve(options);
        return 2;
    }
    return ghost::plugin::run(argv + 1);
}
