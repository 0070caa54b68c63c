// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/restorer.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/fault.hpp"
#include "base/log.hpp"
#include "base/pidfd.hpp"
#include "base/scheduling.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/criu/realtime_priority.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"

namespace ghost::plugin {
namespace {

using S = RestoreState;
using P = fault::Point;

constexpr int64_t progress_us = 200'000;
// A rank that cannot be restarted: so long the coordinator has to end the job with what is missing
// everywhere, before the runtime hears of it by our end.
constexpr int64_t last_limit_us = 30'000'000;

// What takes the place of memory that the rank shares: the same file for all.
Status add_shared(const std::vector<SharedMapping>& memory, const std::map<std::string, Fd>& files,
                  std::vector<core::InheritFd>& heirs) {
    for (const SharedMapping& one : memory) {
        const auto file = files.find(one.id);
        if (file == files.end())
            return make_error(Code::internal, "share memory", one.id, "nobody has made it");
        const int fd = file->second.get();
        if (::ftruncate(fd, static_cast<off_t>(one.size)) != 0 || ::fchmod(fd, one.mode) != 0)
            return sys_error("share memory", one.id);
        heirs.push_back({fd, one.key, one.id});
    }
    return {};
}

// The rank's descriptors lead to these new ones.
Result<std::vector<core::InheritFd>> heirs_of(const RankStdio& ghost, std::optional<Stdio>& stdio) {
    auto made = Stdio::for_ghost(ghost);
    if (!made) return made.error();
    stdio.emplace(std::move(*made));
    std::vector<core::InheritFd> out;
    for (auto& [fd, key] : stdio->heirs(ghost)) out.push_back({fd, key});
    return out;
}

}  // namespace

Restorer::Restorer(Identity who, const core::Signals& signals, core::Guard guard,
                   ControlSocket control, std::unique_ptr<GhostSource> source)
    : who_(std::move(who)),
      signals_(signals),
      guard_(std::move(guard)),
      control_(std::move(control)),
      daemon_(watch_parent()),
      source_(std::move(source)) {
    guard_.set_duty(core::Guard::Duty::kill);
}

bool Restorer::change(S to) {
    const S from = state_;
    const auto who = [this] { return fmt::format("move {}", seq_); };
    if (restore_states.change(state_, to, log::Level::debug, who)) {
        on_source_ =
            loop_.on_readable(to == S::listening ? source_->fd() : -1, [this] { begin_import(); });
        return true;
    }
    fail(Stage::importing, fmt::format("a bug: no way from {} to {}", restore_states.name(from),
                                       restore_states.name(to)));
    return false;
}

std::optional<RankTree> Restorer::run() {
    const core::RealtimePriority urgent;
    send(schema::encode(who_.hello(source_->mode(), 0)));
    begin_watching();
    while (!ended()) {
        if (Status waited = loop_.round(); !waited) call_off(waited.error().message());
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
    if (!control_.valid() || !daemon_.valid()) return false;
    bool said = false;
    Loop loop;
    const auto on_signal = loop.on_readable(signals_.fd(), [&] {
        if (signals_.next() != 0) loop.stop();
    });
    const auto on_daemon = loop.on_readable(daemon_.get(), [&] { loop.stop(); });
    const auto on_control = loop.on_readable(control_.fd(), [&] {
        auto message = control_.receive(0);
        std::string answer;
        const auto word = message ? reader_.read(message->text, answer) : std::nullopt;
        said = word && word->is<Abort>();
        if (said || (!message && message.error().code == Code::peer_lost)) loop.stop();
    });
    const auto limit = loop.after(last_limit_us, [&] { loop.stop(); });
    if (Status waited = loop.run(); !waited) log::error("{}", waited.error().message());
    return said;
}

void Restorer::say_why() const {
    std::fprintf(stderr, "ghost-wrapper: rank %u cannot go on from its snapshot: %s\n", who_.rank,
                 why_.c_str());
}

// In this order what comes at the same time is looked at.
void Restorer::begin_watching() {
    on_signal_ = loop_.on_readable(signals_.fd(), [this] { take_signals(); });
    on_control_ = loop_.on_readable(control_.fd(), [this] { take_control(); });
    on_daemon_ = loop_.on_readable(daemon_.get(), [this] { daemon_died(); });
    on_worker_ = loop_.on_readable(worker_.fd(), [this] { worker_done(); });
}

void Restorer::tell_progress() {
    uint64_t bytes = 0, total = 0;
    if (worker_.progress(bytes, total))
        send(schema::encode(TransferProgress{seq_, who_.rank, bytes, total}));
}

void Restorer::take_signals() {
    while (int s = signals_.next()) {
        if (s == SIGTERM || s == SIGINT || s == SIGHUP) call_off("the job is being ended");
    }
}

void Restorer::take_control() {
    while (!ended() && control_.valid()) {
        auto message = control_.receive(0);
        if (!message) {
            if (message.error().code == Code::timeout) return;
            if (message.error().code != Code::peer_lost) continue;
            return lose_control();
        }
        std::string answer;
        const auto read = reader_.read(message->text, answer);
        if (!answer.empty()) send(answer);
        if (read) handle(*read, std::move(message->fds));
    }
}

void Restorer::handle(const schema::Received& message, std::vector<Fd> fds) {
    switch (message.type<ToWrapper>()) {
        case ToWrapper::prepare:
            return prepare(message.as<Prepare>());
        case ToWrapper::go:
            return go(message.as<Go>());
        case ToWrapper::abort:
        case ToWrapper::cancel:
            return call_off("the coordinator called it off");
        case ToWrapper::import:
            return import(message.as<Import>(), std::move(fds));
        default:
            return send(not_for_this_wrapper(message));
    }
}

void Restorer::import(const Import& order, std::vector<Fd> files) {
    for (size_t i = 0; i < std::min(order.shared.size(), files.size()); ++i)
        shared_.insert_or_assign(order.shared[i], std::move(files[i]));
    if (!order.more && !source_->comes_later()) begin_import();
}

void Restorer::prepare(const Prepare& order) {
    if (!may(S::warming)) return fail(Stage::prepare, "this wrapper has a move already");
    seq_ = order.seq;
    shown_ = order.shown;
    Status made = folder_.make(fmt::format("{}-{}-{}.in", who_.job, who_.rank, seq_), &guard_);
    if (!made) return fail(Stage::prepare, made.error().message());
    const auto proof = who_.proof(order.secret);
    if (auto begun = source_->begin(proof, order.interfaces); !begun)
        return fail(Stage::prepare, begun.error().message());
    if (!change(S::warming)) return;
    on_progress_ = loop_.every(progress_us, [this] { tell_progress(); });
    worker_.start([this]() -> Outgoing {
        if (Status fine = fault::pass(P::wrapper_prepares); !fine)
            return who_.failed(seq_, Stage::prepare, fine.error().message());
        Status warm = core::warm_up({who_.criu, folder_.path()});
        if (!warm) return who_.failed(seq_, Stage::prepare, warm.error().message());
        Status fine = source_->look(worker_);
        if (!fine) return who_.failed(seq_, Stage::check, fine.error().message());
        return source_->ready(seq_);
    });
}

void Restorer::daemon_died() {
    on_daemon_.reset();
    daemon_.reset();
    call_off("the daemon has died");
}

void Restorer::begin_import() {
    if (!may(S::importing)) return fail(Stage::importing, "this ghost was not looked at");
    if (!change(S::importing)) return;
    worker_.start([this]() -> Outgoing {
        auto live = source_->link(worker_);
        if (!live) return import_failed(live.error());
        return *live != nullptr ? import_live(**live) : import_ghost();
    });
    on_progress_ = loop_.every(progress_us, [this] { tell_progress(); });
}

// What a target lacks is said in other words than what goes wrong.
Outgoing Restorer::import_failed(const Error& error) const {
    const bool lacks = error.code == Code::refused || error.code == Code::unsupported;
    if (lacks && source_->comes_later()) return who_.failed(seq_, Stage::target, error.why);
    return who_.failed(seq_, Stage::importing, error.message());
}

// On the worker: the rank runs until its last stop, and takes no processor from others till then.
Outgoing Restorer::import_live(core::Resource& link) {
    schedule_ordinarily();
    std::optional<Stdio> stdio;
    core::LiveImportRequest request;
    request.criu = {who_.criu, folder_.path()};
    request.inherit_by_all = [&](const Json& metadata) -> Result<std::vector<core::InheritFd>> {
        const auto of_rank = rank_metadata_in(metadata);
        GHOST_TRY(of_rank);
        return heirs_of(of_rank->stdio.value_or(RankStdio()), stdio);
    };
    request.last_metadata = [&](const Json& fields) -> Status {
        const auto of_rank = rank_metadata_in(fields);
        GHOST_TRY(of_rank);
        stdio->take_state(of_rank->stdio.value_or(RankStdio()));
        return {};
    };
    request.tells_root = [this](pid_t root) { guard_.watch(root); };
    request.progress = [this](uint64_t b, uint64_t t) { worker_.note(b, t); };
    request.gets_on = [this] { worker_.gets_on(); };
    auto held = core::live_hold(request, link);
    worker_.uses(-1);
    if (held) return hold(*held, *stdio);
    // The source's own reason, which may be here before it is heard from there.
    if (held.error().code == Code::busy) return who_.failed(seq_, Stage::live, held.error().why);
    return import_failed(held.error());
}

// On the worker.
Outgoing Restorer::import_ghost() {
    const auto failed = [this](const Error& error) {
        return who_.failed(seq_, Stage::importing, error.message());
    };
    auto importer = source_->open(worker_);
    if (!importer) return import_failed(importer.error());
    const auto metadata = rank_metadata_in(importer->metadata());
    if (!metadata) return failed(metadata.error());
    std::optional<Stdio> stdio;
    auto heirs = heirs_of(metadata->stdio.value_or(RankStdio()), stdio);
    if (!heirs) return failed(heirs.error());
    const auto shared = metadata->shared.value_or(SharedMappings());
    if (Status added = add_shared(shared.memory, shared_, *heirs); !added)
        return failed(added.error());
    importer->tell_root([this](pid_t root) { guard_.watch(root); });
    importer->tell_steps([this] { worker_.gets_on(); });
    auto held = importer->hold({who_.criu, folder_.path()}, *heirs,
                               [this](uint64_t b, uint64_t t) { worker_.note(b, t); });
    worker_.uses(-1);
    if (!held) return import_failed(held.error());
    agent_ = metadata->agent;
    const auto last = rank_metadata_in(importer->metadata());
    if (last && last->stdio) stdio->take_state(*last->stdio);
    return hold(*held, *stdio);
}

Outgoing Restorer::hold(const core::HeldTree& held, Stdio& stdio) {
    stdio.close_rank_ends();
    stdio_ = std::move(stdio);
    if (!source_->comes_later() && (!shown_ || shown_->anew)) stdio_.begin_counts();
    if (shown_ && !stdio_.skip_output(*shown_))
        log::warning(
            "rank {}: where its output stood is not known; what it has written since the "
            "snapshot may be shown twice",
            who_.rank);
    held_ = held;
    (void)fault::pass(P::init_held, fault::Process{held_.root});
    if (Status fine = fault::pass(P::wrapper_holds); !fine)
        return who_.failed(seq_, Stage::importing, fine.error().message());
    Held out;
    out.seq = seq_;
    out.rank = who_.rank;
    out.bytes = held_.bytes + held_.skeleton_bytes;
    out.skeleton_us = held_.skeleton_us;
    out.pages_us = held_.pages_us;
    if (source_->comes_later()) return out;
    // The node agent has nothing of this rank yet: all that it must have to replace us.
    out.init = held_.root;
    out.agent = agent_;
    return out;
}

void Restorer::worker_done() {
    if (!worker_.busy()) return;
    on_progress_.reset();
    const Outgoing answer = worker_.finish();
    const auto* failed = std::get_if<Failed>(&answer);
    const auto* held = std::get_if<Held>(&answer);
    const bool off = state_ == S::calling_off;
    if (failed != nullptr && !off) why_ = failed->why;
    if (!change(off || failed != nullptr ? S::failed : held != nullptr ? S::held : S::listening))
        return;
    if (!off)
        send(encode(answer), held != nullptr && held->init ? stdio_.spare() : std::vector<int>());
    if (held != nullptr && !off) watch_held();
    // mpirun has bound us if it has started us; meanwhile the answer is on its way.
    if (held != nullptr && !off && source_->comes_later())
        core::bind_beside_siblings(*held_.placement);
}

// Until it runs the original may go on in its place.
void Restorer::watch_held() {
    held_fd_ = open_pidfd(held_.root);
    on_held_ = loop_.on_readable(held_fd_.get(), [this] {
        on_held_.reset();
        fail(Stage::importing, "the copy of the rank was killed before it ran");
    });
}

void Restorer::go(const Go& word) {
    on_held_.reset();
    if (!may(S::running)) return fail(Stage::going, "no tree is held");
    (void)fault::pass(P::wrapper_goes);
    if (Status let_go = core::release_tree(held_); !let_go) {
        return fail(Stage::going, let_go.error().message());
    }
    guard_.set_duty(core::Guard::Duty::leave);
    if (!change(S::running)) return;
    (void)fault::pass(P::init_goes, fault::Process{held_.root});
    Status woken = wake_agent(held_.root, word.agent ? word.agent : agent_);
    if (!woken) log::warning("{}", woken.error().message());
}

void Restorer::fail(Stage stage, const std::string& why) {
    send(schema::encode(who_.failed(seq_, stage, why)));
    call_off(why);
}

void Restorer::call_off(const std::string& why) {
    if (ended() || state_ == S::calling_off) return;
    log::info("move {} called off: {}", seq_, why);
    why_ = why;
    if (worker_.busy()) worker_.interrupt();
    change(worker_.busy() && may(S::calling_off) ? S::calling_off : S::failed);
}

void Restorer::send(const std::string& packet, const std::vector<int>& fds) {
    if (!control_.valid()) return;
    if (Status sent = control_.send_text(packet, fds); !sent) {
        log::info("{}", sent.error().message());
        lose_control();
    }
}

void Restorer::lose_control() {
    on_control_.reset();
    control_.close();
    call_off("the node agent has gone");
}

}  // namespace ghost::plugin
