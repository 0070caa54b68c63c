// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/restorer.hpp"

#include <csignal>
#include <cstdio>
#include <fmt/format.h>
#include <poll.h>
#include <utility>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "ghost-core/criu/realtime_priority.hpp"
#include "pmix-plugin/wrapper/agent_signal.hpp"
#include "pmix-plugin/wrapper/change_state.hpp"

namespace ghost::plugin {
namespace {

using S = RestoreState;

constexpr const char* state_name[] = {"waiting", "warming", "listening", "importing",
                                      "held",    "running", "failed"};

constexpr std::pair<S, S> transitions[] = {
    {S::waiting, S::warming},      // prepare
    {S::warming, S::listening},    // criu works
    {S::listening, S::importing},  // the source connects, or `import`
    {S::importing, S::held},       // the tree is there
    {S::held, S::running},         // go
    {S::waiting, S::failed},      {S::warming, S::failed}, {S::listening, S::failed},
    {S::importing, S::failed},    {S::held, S::failed},
};

constexpr int progress_ms = 200;
// A rank that cannot be restarted: so long the coordinator has to end the job with what is missing
// everywhere, before the runtime hears of it by our end.
constexpr int64_t last_limit_us = 30'000'000;

bool readable(int fd) {
    pollfd p{fd, POLLIN, 0};
    return fd >= 0 && ::poll(&p, 1, 0) == 1;
}

}  // namespace

Restorer::Restorer(Identity who, const Signals& signals, Guard guard, ControlSocket control,
                   std::unique_ptr<GhostSource> source)
    : who_(std::move(who)),
      signals_(signals),
      guard_(std::move(guard)),
      control_(std::move(control)),
      daemon_(watch_parent()),
      source_(std::move(source)) {
    guard_.arm(true);
}

void Restorer::change(S to) {
    change_state(state_, to, transitions, state_name, "move", seq_);
}

std::optional<RankTree> Restorer::run() {
    const core::RealtimePriority urgent;
    tell({{"t", "hello"},
          {"role", "wrapper"},
          {"version", wrapper_protocol},
          {"job", who_.job},
          {"rank", who_.rank},
          {"secret", who_.secret},
          {"pid", getpid()},
          {"init", 0},
          {"mode", source_->mode()}});
    while (!ended()) {
        wait_for_something();
        take_signals();
        take_control();
        look_at_daemon();
        look_at_source();
        look_at_worker();
    }
    folder_.remove();
    if (state_ == S::failed) {
        core::destroy_tree(held_);
        if (!wait_for_the_end()) say_why();
        guard_.stop();
        return {};
    }
    RankTree out;
    out.who = who_;
    out.root = held_.root;
    out.stdio = std::move(stdio_);
    out.guard = std::move(guard_);
    out.control = std::move(control_);
    out.mode = source_->mode();
    return out;
}

// True: somebody else says what happened.
bool Restorer::wait_for_the_end() {
    if (source_->comes_later()) return true;  // of a move nobody waits for us
    const int64_t limit = monotonic_us() + last_limit_us;
    while (control_.valid() && daemon_.valid() && monotonic_us() < limit) {
        pollfd set[] = {
            {signals_.fd(), POLLIN, 0}, {control_.fd(), POLLIN, 0}, {daemon_.get(), POLLIN, 0}};
        ::poll(set, std::size(set), static_cast<int>((limit - monotonic_us()) / 1000 + 1));
        if (signals_.next() != 0 || readable(daemon_.get())) return false;
        if (!readable(control_.fd())) continue;
        auto message = control_.receive(0);
        if (!message && message.error().code == Code::peer_lost) return false;
        if (message && message->body.value("t", "") == "abort") return true;
    }
    return false;
}

void Restorer::say_why() const {
    std::fprintf(stderr, "ghost-wrapper: rank %u cannot go on from its snapshot: %s\n", who_.rank,
                 why_.c_str());
}

void Restorer::wait_for_something() {
    pollfd set[] = {{signals_.fd(), POLLIN, 0},
                    {control_.fd(), POLLIN, 0},
                    {daemon_.get(), POLLIN, 0},
                    {worker_.fd(), POLLIN, 0},
                    {state_ == S::listening ? source_->fd() : -1, POLLIN, 0}};
    ::poll(set, std::size(set), worker_.busy() ? progress_ms : -1);
    uint64_t bytes = 0, total = 0;
    if (state_ == S::importing && worker_.busy() && worker_.progress(bytes, total)) {
        tell({{"t", "progress"}, {"seq", seq_}, {"bytes", bytes}, {"total", total}});
    }
}

void Restorer::take_signals() {
    while (int s = signals_.next()) {
        if (s == SIGTERM || s == SIGINT || s == SIGHUP) call_off("the job is being ended");
    }
}

void Restorer::take_control() {
    while (!ended() && control_.valid() && readable(control_.fd())) {
        auto message = control_.receive(0);
        if (!message) {
            if (message.error().code != Code::peer_lost) continue;
            control_.close();
            call_off("the node agent has gone");
            break;
        }
        const Json& m = message->body;
        std::string type = m.value("t", "");
        if (type == "prepare") {
            prepare(m);
        } else if (type == "import" && !source_->comes_later()) {
            begin_import();
        } else if (type == "go") {
            go(m);
        } else if (type == "abort" || type == "cancel") {
            call_off("the coordinator called it off");
        } else if (type != "error") {
            tell({{"t", "error"}, {"why", "unknown message " + type}});
        }
    }
}

void Restorer::prepare(const Json& message) {
    if (state_ != S::waiting) return fail("prepare", "this wrapper has a move already");
    seq_ = message.value("seq", uint64_t{0});
    Status made = folder_.make(fmt::format("{}-{}-{}.in", who_.job, who_.rank, seq_), guard_);
    if (!made) return fail("prepare", made.error().message());
    if (auto begun = source_->begin(); !begun) return fail("prepare", begun.error().message());
    change(S::warming);
    worker_.start([this]() -> Json {
        Status warm = core::warm_up({who_.criu, folder_.path()});
        if (!warm) return failed(seq_, "prepare", warm.error().message());
        if (source_->comes_later()) return source_->ready();
        Status fine = source_->look();
        return fine ? Json::object() : failed(seq_, "check", fine.error().message());
    });
}

void Restorer::look_at_daemon() {
    if (!readable(daemon_.get())) return;
    daemon_.reset();
    call_off("the daemon has died");
}

void Restorer::look_at_source() {
    if (state_ == S::listening && readable(source_->fd())) begin_import();
}

void Restorer::begin_import() {
    if (state_ != S::listening) return fail("import", "this ghost was not looked at");
    change(S::importing);
    worker_.start([this] { return import_ghost(); });
}

// On the worker.
Json Restorer::import_ghost() {
    auto importer = source_->open(worker_);
    if (!importer) return failed(seq_, "import", importer.error().message());
    const Json& metadata = importer->metadata();
    Json wanted = metadata.value("stdio", Json::object());
    auto stdio = Stdio::for_ghost(wanted);
    if (!stdio) return failed(seq_, "import", stdio.error().message());
    std::vector<core::InheritFd> heirs;
    for (auto& [fd, key] : stdio->heirs(wanted)) heirs.push_back({fd, key});
    auto held = importer->hold({who_.criu, folder_.path()}, heirs,
                               [this](uint64_t b, uint64_t t) { worker_.note(b, t); });
    worker_.uses(-1);
    if (!held) return failed(seq_, "import", held.error().message());
    stdio->close_rank_ends();
    stdio_ = std::move(*stdio);
    held_ = *held;
    agent_ = metadata.value("agent", Json());
    guard_.watch(held_.root);
    return {{"t", "held"},
            {"seq", seq_},
            {"bytes", held_.bytes + held_.skeleton_bytes},
            {"skeleton_us", held_.skeleton_us},
            {"pages_us", held_.pages_us}};
}

void Restorer::look_at_worker() {
    if (!worker_.busy() || !readable(worker_.fd())) return;
    Json answer = worker_.finish();
    if (called_off_) return change(S::failed);
    if (answer.value("t", "") == "failed") {
        why_ = answer.value("why", "");
        tell(answer);
        return change(S::failed);
    }
    if (state_ == S::importing) return say_held(std::move(answer));
    change(S::listening);
    answer.update({{"t", source_->comes_later() ? "ready" : "checked"}, {"seq", seq_}});
    tell(answer);
}

void Restorer::say_held(Json answer) {
    change(S::held);
    if (source_->comes_later()) return tell(answer);
    // The node agent has nothing of this rank yet: all that it must have to replace us.
    answer["init"] = held_.root;
    if (agent_.is_object()) answer["agent"] = agent_;
    tell(answer, stdio_.spare());
}

void Restorer::go(const Json& message) {
    if (state_ != S::held) return fail("go", "no tree is held");
    if (Status let_go = core::release_tree(held_); !let_go) {
        return fail("go", let_go.error().message());
    }
    guard_.arm(false);
    change(S::running);
    const Json agent = message.value("agent", Json());
    Status woken = wake_agent(held_.root, agent.is_object() ? agent : agent_);
    if (!woken) log::warning("{}", woken.error().message());
}

void Restorer::fail(const char* stage, const std::string& why) {
    tell(failed(seq_, stage, why));
    call_off(why);
}

void Restorer::call_off(const std::string& why) {
    if (ended() || called_off_) return;
    log::info("move {} called off: {}", seq_, why);
    why_ = why;
    if (!worker_.busy()) return change(S::failed);
    called_off_ = true;
    worker_.interrupt();
}

void Restorer::tell(const Json& message, const std::vector<int>& fds) {
    if (!control_.valid()) return;
    if (Status sent = control_.send(message, fds); !sent) {
        log::info("{}", sent.error().message());
        control_.close();
        call_off("the node agent has gone");
    }
}

}  // namespace ghost::plugin
