// ghost-wrapper: the parent of every rank's process tree (the runtime's fork agent).
//
//   ghost-wrapper PROGRAM [ARGUMENT…]                        starts a rank's program
//   ghost-wrapper --restore --rank R --job J --control-fd 3  makes a rank from a ghost
//   ghost-wrapper --adopt --rank R --init PID --control-fd 3 goes on for a wrapper that died
//
// What it does for a living rank is in supervisor.hpp; messages are in docs/PROTOCOL.md.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <unistd.h>

#include "base/log.hpp"
#include "pmix-plugin/wrapper/spawn.hpp"
#include "pmix-plugin/wrapper/supervisor.hpp"

namespace ghost::plugin {
namespace {

[[noreturn]] void become_program(char** program) {
    execvp(program[0], program);
    std::fprintf(stderr, "ghost-wrapper: cannot execute %s: %s\n", program[0],
                 std::strerror(errno));
    _exit(127);
}

// A rank that cannot be moved is better than none: it runs as it would without us.
[[noreturn]] void run_unmovable(const Identity& who, const Signals& signals,
                                const ControlSocket& control, const Error& why, char** program) {
    log::info("rank {} is not movable: {}", who.rank, why.message());
    Json hello = {{"t", "hello"},     {"role", "wrapper"},    {"job", who.job},
                  {"rank", who.rank}, {"secret", who.secret}, {"pid", getpid()},
                  {"init", 0},        {"mode", "direct"},     {"why", why.message()}};
    if (auto sent = control.send(hello); !sent) log::info("{}", sent.error().message());
    signals.restore();
    become_program(program);
}

int run(char** program) {
    Identity who = Identity::from_environment();
    log::setup("wrapper of rank " + std::to_string(who.rank), log::level_from_environment());
    if (who.node_socket.empty()) become_program(program);
    auto control = ControlSocket::connect(who.node_socket);
    if (!control) {
        log::info("rank {} is not movable: {}", who.rank, control.error().message());
        become_program(program);
    }
    auto signals = Signals::block();
    if (!signals) become_program(program);
    auto stdio = Stdio::for_program();
    if (!stdio) run_unmovable(who, *signals, *control, stdio.error(), program);
    auto root = spawn_program(who, *signals, *stdio, program);
    if (!root) run_unmovable(who, *signals, *control, root.error(), program);
    stdio->close_rank_ends();
    auto guard = Guard::start();
    if (!guard) log::warning("{}", guard.error().message());
    Charge charge;
    charge.who = std::move(who);
    charge.root = *root;
    charge.stdio = std::move(*stdio);
    if (guard) charge.guard = std::move(*guard);
    charge.control = std::move(*control);
    end_like(Supervisor(std::move(charge), *signals).run());
}

}  // namespace
}  // namespace ghost::plugin

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: ghost-wrapper PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    return ghost::plugin::run(argv + 1);
}
