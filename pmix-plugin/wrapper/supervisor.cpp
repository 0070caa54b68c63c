// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/supervisor.hpp"

#include <csignal>
#include <fmt/format.h>
#include <fstream>
#include <sys/wait.h>
#include <utility>

#include "base/log.hpp"
#include "base/pidfd.hpp"
#include "ghost-core/criu/nested.hpp"
#include "ghost-core/criu/placement.hpp"
#include "ghost-core/engine/migration.hpp"

namespace ghost::plugin {
namespace {

// How long an adopted rank's status may take to come from the daemon, which reaps it.
constexpr int64_t status_limit_us = 5'000'000;
constexpr int64_t lost_us = 100'000;      // a daemon that dies is known to be dead by then
constexpr int64_t progress_us = 200'000;  // between two looks at what a transfer has done

// An adopted tree's name is gone with its zombie: 128 + N is taken for signal N, as a shell does.
int guess_status(int status) {
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    return code > 128 && code <= 128 + 64 ? code - 128 : status;
}

}  // namespace

Fd watch_parent() {
    for (;;) {
        pid_t parent = getppid();
        Fd fd = open_pidfd(parent);
        if (!fd.valid() || getppid() == parent) return fd;
    }
}

Supervisor::Supervisor(RankTree rank_tree, const core::Signals& signals)
    : rank_tree_(std::move(rank_tree)),
      signals_(signals),
      daemon_(watch_parent()),
      tree_(open_pidfd(rank_tree_.root)),
      snapshotter_(parts()),
      mover_(parts(), [this] { return snapshotter_.stop_tracking(); }) {
    rank_tree_.guard.watch(rank_tree_.root);
}

TreeParts Supervisor::parts() {
    return {rank_tree_.who, rank_tree_.root, rank_tree_.stdio, rank_tree_.guard,
            [this](const std::string& packet) { send(packet); }};
}

int Supervisor::run() {
    rank_tree_.stdio.start();
    say_hello();
    begin_watching();
    while (!done()) {
        watch_what_changes();
        const Status waited = loop_.round(!has_more_to_drain());
        if (!waited) log::error("{}", waited.error().message());
        move_stdio();
        snapshotter_.step();
        mover_.step();
        look_for_status();
    }
    const int status = mover_.gone() ? 0 : status_.value_or(0);
    if (!mover_.gone()) send(schema::encode(rank_tree_.stdio.output_given()));
    if (!mover_.gone()) send(schema::encode(Exit{status}));
    mover_.leave_nothing();  // whoever ends the process does not come to its destructors
    rank_tree_.guard.stop();
    return status;
}

void Supervisor::say_hello() {
    if (!rank_tree_.control.valid()) return;
    const WrapperHello hello = rank_tree_.who.hello(rank_tree_.mode, rank_tree_.root);
    Status sent = rank_tree_.control.send_text(schema::encode(hello), rank_tree_.stdio.spare());
    if (!sent) log::warning("cannot reach the node agent: {}", sent.error().message());
}

// In this order what comes at the same time is looked at.
void Supervisor::begin_watching() {
    on_signal_ = loop_.on_readable(signals_.fd(), [this] { take_signals(); });
    on_control_ = loop_.on_readable(rank_tree_.control.fd(), [this] { take_control(); });
    on_daemon_ = loop_.on_readable(daemon_.get(), [this] { daemon_died(); });
    on_tree_ = loop_.on_readable(tree_.get(), [this] { tree_left(); });
    on_move_ = loop_.on_readable(mover_.fd(), [this] { move_worker_done(); });
    on_snapshot_ = loop_.on_readable(snapshotter_.fd(), [this] { snapshot_worker_done(); });
    if (!tree_.valid()) tree_left();
}

// The pumps, and how far a transfer is, are looked at in every round.
void Supervisor::watch_what_changes() {
    const auto interests = rank_tree_.stdio.interests();
    for (size_t i = 0; i < interests.size(); i++) {
        auto& [what, watch] = on_stdio_[i];
        if (what == interests[i]) continue;
        what = interests[i];
        watch =
            what.to_write ? loop_.on_writable(what.fd, [] {}) : loop_.on_readable(what.fd, [] {});
    }
    if (!mover_.busy() && !snapshotter_.busy())
        on_progress_.reset();
    else if (!on_progress_)
        on_progress_ = loop_.every(progress_us, [] {});
}

// What is to be drained may have no descriptor to wait for: it is looked at again at once.
bool Supervisor::has_more_to_drain() const {
    const bool draining = mover_.leaving() || (tree_gone_ && status_);
    return draining && !mover_.busy() && !snapshotter_.busy() && !mover_.gone() &&
           !rank_tree_.stdio.output_blocked();
}

void Supervisor::move_stdio() {
    rank_tree_.stdio.run();
    if (rank_tree_.stdio.input_was_taken())
        send(schema::encode(StdinTaken{rank_tree_.stdio.input_taken()}));
    if (rank_tree_.stdio.input_just_closed()) send(schema::encode(StdinClosed{}));
}

void Supervisor::move_worker_done() {
    if (!mover_.busy()) return;
    mover_.worker_done();
    if (terminated_) kill_if_stopped();
}

void Supervisor::snapshot_worker_done() {
    if (!snapshotter_.busy()) return;
    snapshotter_.worker_done();
    if (terminated_) kill_if_stopped();
    if (snapshotter_.clearing()) return;
    for (const auto& message : std::exchange(later_, {})) operation(message);
}

// A tree that is frozen cannot take a signal.
bool Supervisor::is_frozen() const {
    return !tree_gone_ && (mover_.stopped() || snapshotter_.stopped());
}

void Supervisor::kill_if_stopped() {
    if (is_frozen()) (void)core::kill_tree(rank_tree_.root);
}

void Supervisor::take_signals() {
    while (int s = signals_.next()) {
        if (s == SIGTERM) {
            // SIGKILL follows: by then nobody is to adopt the tree.
            rank_tree_.guard.set_duty(core::Guard::Duty::kill);
            terminated_ = true;
            if (tree_gone_) give_up_output_ = true;
            mover_.break_off();
            snapshotter_.break_off();
            kill_if_stopped();
        }
        // The runtime sends it a second before it ends a job: what was saved does not run on, and
        // whoever lets the job go on has mpirun say so.
        const bool let_be = s == SIGCONT && is_frozen();
        if (!tree_gone_ && !let_be) ::kill(rank_tree_.root, s);
    }
}

void Supervisor::take_control() {
    while (rank_tree_.control.valid()) {
        auto message = rank_tree_.control.receive(0);
        if (message) {
            std::string answer;
            const auto read = reader_.read(message->text, answer);
            if (!answer.empty()) send(answer);
            if (read) handle(*read);
        } else if (message.error().code == Code::timeout) {
            return;
        } else if (message.error().code == Code::peer_lost) {
            log::info("the node agent has closed the connection");
            lose_control();
        } else {
            log::warning("{}", message.error().message());
        }
    }
}

// Moves and snapshots; one at a time. False: it is of neither.
bool Supervisor::operation(const schema::Received& message) {
    const bool move = message.is<Connect>(), begins = move || message.is<SnapPrepareRank>();
    if (begins && snapshotter_.clearing()) {
        later_.push_back(message);
        return true;
    }
    if (begins && !(move ? snapshotter_.idle() : mover_.idle())) {
        parts().fail(message.seq(), move ? Stage::connect : Stage::prepare,
                     "a move or snapshot of this rank is not finished");
        return true;
    }
    return snapshotter_.handle(message) || mover_.handle(message);
}

void Supervisor::handle(const schema::Received& message) {
    if (operation(message)) return;
    if (message.is<Bye>()) {
        bye_ = true;
    } else if (message.is<ChildStatus>()) {
        if (rank_tree_.adopted) tree_ended(guess_status(message.as<ChildStatus>().status));
    } else {
        send(not_for_this_wrapper(message));
    }
}

// Without its daemon a rank has no job: it ends, and nothing is left.
void Supervisor::daemon_died() {
    log::info("the daemon has died: ending the rank");
    on_daemon_.reset();
    daemon_.reset();
    give_up_output_ = true;
    if (!tree_gone_) (void)core::kill_tree(rank_tree_.root);  // it may be frozen
    if (rank_tree_.adopted && !status_) status_ = SIGKILL;
}

void Supervisor::tree_left() {
    if (!rank_tree_.adopted) return tree_ended(core::reap_nested(rank_tree_.root));
    on_tree_.reset();
    tree_.reset();
    tree_gone_ = true;
    on_status_late_ = loop_.after(status_limit_us, [this] { status_late_ = true; });
}

void Supervisor::look_for_status() {
    const bool missing = tree_gone_ && !status_ && !mover_.gone();
    if (!missing || (rank_tree_.control.valid() && !status_late_)) return;
    log::warning("the daemon does not tell how the rank ended");
    tree_ended(1 << 8);
}

void Supervisor::tree_ended(int status) {
    tree_gone_ = true;
    on_tree_.reset();
    tree_.reset();
    status_ = status;
    mover_.break_off();
    snapshotter_.break_off();
    rank_tree_.guard.watch(0);
    core::remove_stale_notes();  // it may have been killed while it was frozen
    log::debug("the rank has ended with status {:#x}", status);
}

bool Supervisor::done() {
    if (!tree_gone_ || mover_.busy() || snapshotter_.busy()) return false;
    if (mover_.gone()) return bye_ || !rank_tree_.control.valid();
    if (!status_) return false;
    return give_up_output_ || rank_tree_.stdio.drained();
}

void Supervisor::send(const std::string& packet) {
    if (!rank_tree_.control.valid()) return;
    if (Status sent = rank_tree_.control.send_text(packet); !sent) {
        log::info("{}", sent.error().message());
        lose_control();
    }
}

void Supervisor::lose_control() {
    on_control_.reset();
    rank_tree_.control.close();
    on_lost_ = loop_.every(lost_us, [this] { give_way(); });
}

// Nobody can tell this wrapper what to do any more. A daemon that lives lets another one adopt the
// rank, as if this one had been killed; what it has of the rank's output goes first.
void Supervisor::give_way() {
    const bool ends = tree_gone_ || mover_.gone() || terminated_ || bye_;
    if (ends || !daemon_.valid() || rank_tree_.stdio.output_blocked()) return;
    log::warning("the node agent has given up this wrapper: another one takes its place");
    ::kill(getpid(), SIGKILL);
}

}  // namespace ghost::plugin
