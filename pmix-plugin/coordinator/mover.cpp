// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/mover.hpp"

#include <algorithm>

#include "base/log.hpp"

namespace ghost::plugin {

using S = MoveState;

void Mover::change(MoveState next) {
    Move& m = *move_;
    if (!may_follow(m.state, next)) {
        log::error("bug: move {} of rank {} cannot go from {} to {}", m.seq, m.rank, name(m.state),
                   name(next));
    }
    log::info("move {} of rank {} from {} to {}: {} -> {}", m.seq, m.rank, m.from_name, m.to_name,
              name(m.state), name(next));
    if (is_urgent(next) != is_urgent(m.state)) c_.adapter.hurry(is_urgent(next));
    m.state = next;
    if (limit_) c_.adapter.cancel(*limit_);
    if (retry_) c_.adapter.cancel(*retry_);
    limit_.reset();
    retry_.reset();
    if (int64_t us = limit_of(next, c_.settings); us > 0) {
        limit_ = c_.adapter.after(us, [this] {
            limit_.reset();
            expired();
        });
    }
    if (!is_final(next) && progress_) progress_(m);
}

void Mover::retry_after(int64_t us, void (Mover::*step)()) {
    retry_ = c_.adapter.after(us, [this, step] {
        retry_.reset();
        (this->*step)();
    });
}

void Mover::begin(const MoveOrder& order, Progress progress, Finished finished) {
    move_.emplace();
    Move& m = *move_;
    progress_ = std::move(progress);
    finished_ = std::move(finished);
    m.seq = ++c_.last_seq;
    m.rank = order.rank;
    m.to_name = order.to;
    m.mode = "stop";
    m.started = c_.settings.now();
    m.epoch = epoch_;
    if (auto why = check(order)) {
        m.why = *why;
        return finish(S::refused);
    }
    if (m.to == m.from) return finish(S::done);
    m.epoch = epoch_ + 1;
    m.ping = c_.liveness.ping_now();
    change(S::preparing);
    c_.adapter.tell(m.to, Prepare{m.seq, m.epoch, m.rank, m.from});
}

void Mover::on_ready(const Ready& m) {
    change(S::connecting);
    const std::string& host = m.host.empty() ? move_->to_name : m.host;
    c_.adapter.tell(move_->from,
                    Connect{move_->seq, move_->epoch, move_->rank, host, m.port, m.token});
}

void Mover::try_hold() {
    if (!c_.liveness.answered(move_->ping) || !c_.adapter.hold_fences()) {
        return retry_after(c_.settings.hold_retry_us, &Mover::try_hold);
    }
    move_->fences_held = true;
    change(S::gating);
    send_gate();
}

void Mover::send_gate() {
    move_->gate_tried = true;
    move_->gate_sent = c_.settings.now();
    c_.adapter.tell(move_->from, GateRank{move_->seq, move_->rank});
}

void Mover::on_busy(const Busy& m) {
    move_->why = m.why;
    if (!retry_) retry_after(c_.settings.gate_retry_us, &Mover::send_gate);
}

void Mover::on_exported(const Exported& m) {
    move_->exported = true;
    move_->bytes = m.bytes;
    move_->rounds = m.rounds;
    transfer_goes_on();
}

void Mover::on_progress(const TransferProgress& m) {
    move_->bytes = std::max(move_->bytes, m.bytes);
    move_->total = std::max(move_->total, m.total);
    if (progress_) progress_(*move_);
    transfer_goes_on();
}

// exported and progress from A, held and progress from B; `held` may overtake `gated`.
void Mover::transfer_goes_on() {
    if (move_->state != S::transferring) return;
    if (limit_) c_.adapter.cancel(*limit_);
    limit_ = c_.adapter.after(limit_of(S::transferring, c_.settings), [this] {
        limit_.reset();
        expired();
    });
    decide_if_whole();
}

void Mover::decide_if_whole() {
    Move& m = *move_;
    if (!m.exported || !m.held) return;
    epoch_ = m.epoch;
    log::info("decided: rank {} is at {} from epoch {} on", m.rank, m.to_name, m.epoch);
    change(S::switching);
    auto live = c_.liveness.live_nodes();
    m.unanswered = {live.begin(), live.end()};
    c_.adapter.tell_all(Switch{m.seq, m.rank, m.from, m.to, m.epoch});
}

void Mover::on_switched(NodeId from, int votes) {
    if (move_->unanswered.erase(from) == 0) return;
    move_->votes += votes;
    if (move_->unanswered.empty()) all_switched();
}

void Mover::all_switched() {
    Move& m = *move_;
    if (m.unanswered.empty()) {
        c_.adapter.settle_fences(m.votes);
    } else {
        unsettled_ = Unsettled{m.seq, m.unanswered, m.votes};
    }
    m.fences_held = false;
    change(S::going);
    c_.adapter.tell(m.to, Go{m.seq, m.rank, m.agent});
}

// After the decision nothing waits for a daemon that does not matter.
void Mover::switch_expired() {
    Move& m = *move_;
    if (m.unanswered.contains(m.to)) {
        return lose(fmt::format("node {} did not take it over in time", m.to_name));
    }
    for (NodeId node : std::set<NodeId>(m.unanswered)) {
        if (hosts(node)) {
            log::error(
                "node {} hosts ranks and has not confirmed the move of rank {}: the job's "
                "fences wait for it",
                c_.liveness.name_of(node), m.rank);
            continue;
        }
        c_.liveness.give_up(node, true);
        m.unanswered.erase(node);
    }
    all_switched();
}

void Mover::unsettled_message(NodeId from, const schema::Received& m) {
    if (!unsettled_ || m.seq() != unsettled_->seq) return;
    if (m.is<Switched>()) unsettled_answer(from, m.as<Switched>().votes);
    if (m.is<Failed>() && m.as<Failed>().stage == "switch") unsettled_answer(from, 0);
}

void Mover::unsettled_answer(NodeId from, int votes) {
    if (!unsettled_ || unsettled_->nodes.erase(from) == 0) return;
    unsettled_->votes += votes;
    if (!unsettled_->nodes.empty()) return;
    int sum = unsettled_->votes;
    unsettled_.reset();
    c_.adapter.settle_fences(sum);
}

void Mover::on_failed(NodeId from, const Failed& m) {
    const std::string& stage = m.stage;
    std::string whole = fmt::format("{}{}{} at {}", stage, stage.empty() ? "" : ": ", m.why,
                                    c_.liveness.name_of(from));
    switch (move_->state) {
        case S::aborting:
            return on_failed_again(from, stage, whole);
        case S::switching:
            if (from == move_->to) return lose(whole);
            if (stage != "switch") return;  // of before the decision; `switched` will come
            log::error("the bookkeeping of rank {}'s move failed: {}", move_->rank, whole);
            return on_switched(from, 0);
        case S::going:
            if (from == move_->to) lose(whole);
            return;
        default:
            if (from == move_->from || from == move_->to) abort(whole);
    }
}

// While aborting: A may have failed by itself before our `abort` reached it. Only a rank that could
// not attach again did not come back; after anything else `aborted` follows.
void Mover::on_failed_again(NodeId from, const std::string& stage, const std::string& whole) {
    if (from != move_->from) return;
    if (stage == "attach") {
        move_->harmed = true;
        move_->why += "; and it did not come back: " + whole;
        return finish(S::failed);
    }
    // B saw its stream end because A refused: what A found is the reason.
    if (stage == "check") move_->why = whole;
}

void Mover::on_done(const Done& m) {
    move_->downtime = c_.settings.now() - move_->gate_sent;
    move_->moved = true;
    if (m.location) c_.publish(*m.location);
    finish(S::done);
}

void Mover::on_aborted(const Aborted& m) {
    move_->ended = m.ended;
    if (m.location) c_.publish(*m.location);
    const bool unreported = m.unreported;
    const RankId rank = move_->rank;
    const std::string where = move_->from_name;
    finish(S::failed);
    if (unreported) {
        c_.adapter.abort_job(
            1, fmt::format("ghost: rank {} was killed at {} while it moved", rank, where));
    }
}

// A rank that came back after we stopped waiting has new listeners all the same.
void Mover::late(NodeId from, const schema::Received& m) {
    if (m.is<Done>() && m.as<Done>().location) c_.publish(*m.as<Done>().location);
    if (m.is<Aborted>() && m.as<Aborted>().location) c_.publish(*m.as<Aborted>().location);
    log::debug("late message {} of attempt {} from node {}", m.name(), m.seq(), from);
}

void Mover::message(NodeId from, const schema::Received& m) {
    unsettled_message(from, m);
    if (!move_ || m.seq() != move_->seq) return late(from, m);
    if (m.is<Failed>()) return on_failed(from, m.as<Failed>());
    if (m.is<Switched>() && move_->state == S::switching)
        return on_switched(from, m.as<Switched>().votes);
    const S state = move_->state;
    const bool taken =
        (from == move_->from && from_source(m)) || (move_ && from == move_->to && from_target(m));
    if (!taken)
        log::debug("message {} from node {} does not fit state {}", m.name(), from, name(state));
}

// What A says. False: it does not fit the state.
bool Mover::from_source(const schema::Received& m) {
    const S state = move_->state;
    switch (m.type<DaemonMessage>()) {
        case DaemonMessage::connected:
            if (state != S::connecting) return false;
            change(S::holding);
            return try_hold(), true;
        case DaemonMessage::busy:
            return state == S::gating && (on_busy(m.as<Busy>()), true);
        case DaemonMessage::gated:
            if (state != S::gating) return false;
            if (m.as<RankGated>().agent) move_->agent = m.as<RankGated>().agent;
            change(S::transferring);
            return decide_if_whole(), true;
        case DaemonMessage::exported:
            return state == S::transferring && (on_exported(m.as<Exported>()), true);
        case DaemonMessage::progress:
            if (state != S::gating && state != S::transferring) return false;
            return on_progress(m.as<TransferProgress>()), true;
        case DaemonMessage::aborted:
            return state == S::aborting && (on_aborted(m.as<Aborted>()), true);
        default:
            return false;
    }
}

// What B says.
bool Mover::from_target(const schema::Received& m) {
    const S state = move_->state;
    const bool before = state == S::gating || state == S::transferring;
    switch (m.type<DaemonMessage>()) {
        case DaemonMessage::ready:
            return state == S::preparing && (on_ready(m.as<Ready>()), true);
        case DaemonMessage::held:
            if (!before) return false;
            move_->held = true;
            return transfer_goes_on(), true;
        case DaemonMessage::progress:
            return before && (on_progress(m.as<TransferProgress>()), true);
        case DaemonMessage::done:
            return state == S::going && (on_done(m.as<Done>()), true);
        default:
            return false;
    }
}

std::string Mover::limit_text() const {
    const Move& m = *move_;
    auto seconds = static_cast<double>(limit_of(m.state, c_.settings)) / 1e6;
    switch (m.state) {
        case S::preparing:
            return fmt::format("{} was not ready within {} s", m.to_name, seconds);
        case S::connecting:
            return fmt::format("{} could not reach {} within {} s", m.from_name, m.to_name,
                               seconds);
        case S::holding: {
            std::string silent = c_.liveness.first_silent(m.ping);
            if (!silent.empty()) {
                return fmt::format("node {} did not answer for {} s", silent, seconds);
            }
            return fmt::format("the job's fences were never quiet for {} s", seconds);
        }
        case S::gating:
            return fmt::format("the rank could not be stopped within {} s{}{}", seconds,
                               m.why.empty() ? "" : ": ", m.why);
        case S::transferring:
            return fmt::format("nothing of its ghost moved for {} s", seconds);
        case S::going:
            return fmt::format("it did not wake at {} in {} s", m.to_name, seconds);
        default:
            return fmt::format("no answer within {} s", seconds);
    }
}

void Mover::expired() {
    std::string why = limit_text();
    switch (move_->state) {
        case S::switching:
            return switch_expired();
        case S::going:
            return lose(why);
        case S::aborting:
            // Before the first `gate` the rank was never touched: silence means nothing to it.
            move_->harmed = move_->gate_tried;
            move_->why +=
                fmt::format("; {} did not confirm that the rank goes on", move_->from_name);
            return finish(S::failed);
        default:
            return abort(why);
    }
}

void Mover::abort(const std::string& why) {
    Move& m = *move_;
    m.why = why;
    const bool source_knows = m.state != S::preparing;
    const Abort order{m.seq, m.rank};
    if (c_.liveness.alive(m.to)) c_.adapter.tell(m.to, order);
    if (!source_knows) return finish(S::failed);
    change(S::aborting);
    c_.adapter.tell(m.from, order);
}

// After the decision: there is no copy to go back to.
void Mover::lose(const std::string& why) {
    Move& m = *move_;
    m.harmed = true;
    m.why = why;
    std::string told = fmt::format("ghost: rank {} is lost on its way from {} to {}: {}", m.rank,
                                   m.from_name, m.to_name, why);
    finish(S::failed);
    c_.adapter.abort_job(1, told);
}

void Mover::node_lost(NodeId node) {
    unsettled_answer(node, 0);
    if (!move_) return;
    Move& m = *move_;
    std::string lost = fmt::format("node {} is lost", c_.liveness.name_of(node));
    if (is_decided(m.state)) {
        if (node == m.to) return lose(lost);
        if (m.state == S::switching) on_switched(node, 0);
        return;
    }
    if (node == m.from) {
        m.why = lost + ", and the rank with it";
        m.harmed = true;
        if (c_.liveness.alive(m.to)) {
            c_.adapter.tell(m.to, Abort{m.seq, m.rank});
        }
        return finish(S::failed);
    }
    if (node == m.to && m.state != S::aborting) abort(lost);
}

bool Mover::hosts(NodeId node) const {
    const bool decided = move_ && is_decided(move_->state);
    for (const RankInfo& info : c_.adapter.ranks()) {
        if (!info.running) continue;
        NodeId where = decided && info.rank == move_->rank ? move_->to : info.node;
        if (where == node) return true;
    }
    return false;
}

void Mover::release() {
    if (std::exchange(move_->fences_held, false)) c_.adapter.release_fences();
}

std::string Mover::unharmed() const {
    return fmt::format("; the job is unharmed: rank {} goes on at {}", move_->rank,
                       move_->from_name);
}

void Mover::finish(MoveState state) {
    Move& m = *move_;
    if (state == S::failed) {
        m.why = fmt::format("rank {} was not moved from {} to {}: {}", m.rank, m.from_name,
                            m.to_name, m.why);
        if (m.ended) m.why += "; the rank has ended meanwhile";
        if (!m.ended && !m.harmed) m.why += unharmed();
    }
    m.lasted = c_.settings.now() - m.started;
    release();
    change(state);
    Move result = std::move(*move_);
    Finished finished = std::move(finished_);
    move_.reset();
    progress_ = nullptr;
    finished_ = nullptr;
    if (finished) finished(result);
}

void Mover::stop() {
    if (limit_) c_.adapter.cancel(*limit_);
    if (retry_) c_.adapter.cancel(*retry_);
    limit_.reset();
    retry_.reset();
    if (!move_) return;
    if (is_urgent(move_->state)) c_.adapter.hurry(false);
    move_->harmed = is_decided(move_->state);
    move_->why = "mpirun is ending";
    Move result = std::move(*move_);
    Finished finished = std::move(finished_);
    move_.reset();
    if (finished) finished(result);
}

}  // namespace ghost::plugin
