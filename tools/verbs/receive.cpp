// SPDX-License-Identifier: BSD-3-Clause
// `ghost receive`: the target's end of `ghost dup`, started by it on the other node.
#include <cstdlib>
#include <fcntl.h>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fork.hpp"
#include "base/json_text.hpp"
#include "base/user_space.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/resource/network.hpp"
#include "tools/clone_line.hpp"
#include "tools/live_move.hpp"
#include "tools/plain_ghost.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr int order_ms = 30000, accept_ms = 30000, go_ms = 300000;

// Our address as the one who asks has reached it; ssh(1) says so in SSH_CONNECTION.
std::string own_address() {
    const char* connection = std::getenv("SSH_CONNECTION");
    std::istringstream words(connection != nullptr ? connection : "");
    std::string client, port, server;
    words >> client >> port >> server;
    return server.empty() ? "127.0.0.1" : server;
}

void tell_running(const CloneLine& line, const core::PlainTree& tree) {
    if (auto told = line.send(CloneRunning{tree.program}); !told.ok()) {
        // It lives here now, whoever knows of it.
    }
}

// Until nothing is lacking here, or the source asks no more: it may have closed files meanwhile.
Result<CloneOrder> order_to_fulfil(CloneLine& line) {
    for (;;) {
        auto said = line.receive(order_ms);
        if (!said) return said.error();
        if (!said->is<CloneOrder>()) return make_error(Code::corrupt, "be told what is to come");
        const auto& order = said->as<CloneOrder>();
        CloneLacks lacks;
        for (const auto& one : core::check_target(order.needs, order.facts))
            lacks.lines.push_back(core::describe({one}));
        if (lacks.lines.empty()) return order;
        GHOST_TRY(line.send(lacks));
    }
}

Status serve(CloneLine& line, const core::Signals& signals, const std::function<void()>& settled) {
    GHOST_TRY(enter_own_user_space());
    auto told = order_to_fulfil(line);
    if (!told) return told.error();
    const CloneOrder& order = *told;
    auto listener = core::NetworkListener::listen(order.secret);
    if (!listener) return listener.error();
    GHOST_TRY(line.send(
        CloneReady{own_address(), static_cast<uint16_t>(listener->port()), listener->token()}));
    auto source = listener->accept(accept_ms);
    if (!source) return source.error();
    if (order.live) {
        auto moved = receive_live(**source);
        if (!moved) return moved.error();
        source->reset();
        tell_running(line, moved->tree);
        settled();
        const int status = attend(moved->tree, signals);
        moved->stdio->drain();
        core::end_like(status);
    }
    ImportOptions options;
    options.detach = true;
    options.clone = order.clone;
    auto arrival = Arrival::make(std::move(*source), options);
    if (!arrival) return arrival.error();
    GHOST_TRY(line.send(CloneHeld{{json_lines((*arrival)->json())}}));
    auto go = line.receive(go_ms);
    if (!go || !go->is<CloneGo>())
        return make_error(Code::peer_lost, "hear that the process is wanted");
    GHOST_TRY((*arrival)->let_go());
    tell_running(line, (*arrival)->tree());
    settled();
    core::end_like((*arrival)->attend(signals));
}

// The line moves off the standard descriptors, which the imported tree must not get.
CloneLine take_line() {
    Fd in(::fcntl(0, F_DUPFD_CLOEXEC, 10)), out(::fcntl(1, F_DUPFD_CLOEXEC, 10));
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int i = 0; i < 3; ++i) ::dup2(null.get(), i);
    return {std::move(in), std::move(out), to_receiver};
}

int run_receive() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return exit_unharmed;
    Fd ours(ends[0]), theirs(ends[1]);
    const pid_t child = fork_process();
    if (child < 0) return exit_unharmed;
    if (child != 0) {
        // Stays until the other one has settled or ended, so that ssh does too.
        theirs.reset();
        char word = 1;
        if (::read(ours.get(), &word, 1) != 1) return exit_unharmed;
        return word;
    }
    ours.reset();
    ::setsid();
    auto signals = core::Signals::block();
    if (!signals) ::_exit(exit_unharmed);
    CloneLine line = take_line();
    const auto settled = [&] {
        const char done = exit_done;
        line.close();
        if (::write(theirs.get(), &done, 1) != 1) ::_exit(exit_unharmed);
        theirs.reset();
    };
    if (auto served = serve(line, *signals, settled); !served.ok())
        if (auto told = line.send(CloneFailed{served.error().message()}); !told.ok())
            ::_exit(exit_unharmed);
    ::_exit(exit_unharmed);
}

}  // namespace

void define_receive(CommandLine app, int& exit_status) {
    app.hide();  // started by `dup` only
    app.footer("Speaks with `ghost dup` over standard input and output (tools/clone_line.hpp).");
    auto json = add_json(app);
    app.callback([=, &exit_status] { exit_status = run_receive(); });
}

}  // namespace ghost::tools
