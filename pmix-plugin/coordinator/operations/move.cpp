// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/move.hpp"

#include <algorithm>

#include "base/fault.hpp"
#include "pmix-plugin/coordinator/operations/engine.hpp"
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"

namespace ghost::plugin {

using S = MoveState;
using P = fault::Point;

MoveOperation::MoveOperation(Job& job, MoveOrder order, Progress progress, Finished finished)
    : StagedOperation(job, std::move(progress), std::move(finished)),
      order_(std::move(order)),
      unit_(*order_.unit) {
    unit_.members.push_back(this);
    data_.rank = order_.rank;
}

std::string MoveOperation::describe() const {
    return fmt::format("move {} of rank {} from {} to {}", seq(), data_.rank, data_.from_name,
                       data_.to_name);
}

bool MoveOperation::is_decided() const {
    const Phase at = phase();
    return at == Phase::commit || data_.state == S::going || data_.state == S::done;
}

std::optional<Operation::Placement> MoveOperation::placement() const {
    if (data_.state == S::checking || (is_over() && data_.state != S::done)) return std::nullopt;
    return Placement{data_.rank, data_.to, is_decided()};
}

void MoveOperation::show(Json& ps) const {
    Json one = {{"rank", data_.rank},   {"from", data_.from_name},
                {"to", data_.to_name},  {"phase", move_states.name(data_.state)},
                {"mode", data_.mode},   {"bytes", data_.bytes},
                {"total", data_.total}, {"since_us", job_.settings.now() - data_.started}};
    if (!ps.contains("move")) ps["move"] = one;
    ps["moves"].push_back(std::move(one));
}

void MoveOperation::begin() {
    take_number();
    if (unit_.number == 0) unit_.number = seq();
    data_.to_name = order_.to;
    data_.mode = order_.mode;
    data_.chosen = order_.chosen;
    data_.not_live = order_.not_live;
    data_.started = job_.settings.now();
    prepare();
}

// A batch that comes to its end takes nobody: a target that is ready would only wait for that.
void MoveOperation::prepare() {
    if (job_.fences.closing() && !job_.fences.owing())
        return retry_after(job_.settings.hold_retry_us, [this] { prepare(); });
    data_.epoch = job_.epochs.now();
    if (auto why = check()) {
        data_.why = *why;
        const bool waits = job_.settings.now() - data_.started < job_.settings.defer_us;
        if (!data_.early || !waits) return finish(S::refused);
        tell_progress();
        return retry_after(job_.settings.defer_retry_us, [this] { prepare(); });
    }
    if (data_.to == data_.from) return finish(S::done);
    data_.epoch = job_.epochs.reserve(seq());
    data_.ping = job_.liveness.ping_now();
    if (!change(S::preparing) || !passes(P::coordinator_prepares)) return;
    job_.adapter.tell(data_.to, Prepare{seq(), data_.epoch, data_.rank, data_.from, unit_.number,
                                        unit_.ranks[data_.rank]});
}

void MoveOperation::on_ready(const Ready& m) {
    data_.ready = m;
    if (!unit_.all([](const MoveOperation* one) { return one->data_.ready.has_value(); })) return;
    together(S::preparing, [](MoveOperation& one) { one.connect(); });
}

void MoveOperation::connect() {
    if (!change(S::connecting) || !passes(P::coordinator_connects)) return;
    const Ready& m = *data_.ready;
    const std::string& host = m.host.empty() ? data_.to_name : m.host;
    Connect order{seq(), data_.epoch, data_.rank, host, m.port, m.token};
    order.live = is_live();
    if (order_.chosen && is_live()) order.live_from = job_.policy.live_from;
    job_.adapter.tell(data_.from, order);
}

void MoveOperation::on_connected(const Connected& m) {
    data_.connected = true;
    data_.shared = m.shared;
    if (order_.chosen && is_live()) data_.memory = m.memory;
    if (!m.not_live.empty()) {
        data_.mode = "stop";
        data_.not_live = m.not_live;
    }
    if (!unit_.all([](const MoveOperation* one) { return one->data_.connected; })) return;
    look_at_sharers();
    if (!unit_.found.empty()) return abort(why_not_alone());
    together(S::connecting, [](MoveOperation& one) { (void)one.change(S::holding); });
    together(S::holding, [](MoveOperation& one) { one.try_hold(); });
}

// Nothing has been done to a rank yet.
void MoveOperation::look_at_sharers() {
    std::map<RankId, std::vector<SharedPart>> has, found;
    std::map<std::string, SharedPart> all;  // one that is not asked yet has what others say
    for (const MoveOperation* one : unit_.members)
        for (const SharedPart& part : one->data_.shared) all.emplace(part.id, part);
    for (const auto& [id, part] : all)
        for (const RankId rank : part.ranks) has[rank].push_back(part);
    for (const MoveOperation* one : unit_.members) has[one->data_.rank] = one->data_.shared;
    for (const RankId rank :
         sharers_of(unit_.members.front()->data_.rank, [&](RankId rank) { return has[rank]; }))
        found[rank] = has[rank];
    if (found != unit_.ranks) unit_.found = std::move(found);
}

std::string MoveOperation::why_not_alone() const {
    std::set<RankId> others;
    for (const auto& [rank, parts] : unit_.found) others.insert(rank);
    others.erase(data_.rank);
    if (others.empty()) return "what it shares with other ranks has just changed: try again";
    return fmt::format(
        "it shares memory (an MPI shared window, or a mapped file without a name) "
        "with rank{} {}: --with-sharers moves them together",
        others.size() == 1 ? "" : "s", fmt::join(others, ", "));
}

void MoveOperation::try_hold() {
    if (auto why = refusal(job_)) return abort(*why);
    const auto again = [this] { try_hold(); };
    if (!job_.liveness.answered(data_.ping)) return retry_after(job_.settings.hold_retry_us, again);
    if (!hold_fences(again)) return;
    data_.holds = true;
    if (!unit_.all([](const MoveOperation* one) { return one->data_.holds; })) return;
    together(S::holding, [](MoveOperation& one) {
        if (one.change(S::gating)) one.send_gate();
    });
}

void MoveOperation::send_gate() {
    if (!passes(P::coordinator_gates)) return;
    data_.busy = false;
    data_.gate_sent = job_.settings.now();
    job_.adapter.tell(data_.from, GateRank{seq(), data_.rank});
}

void MoveOperation::on_busy(const Busy& m) {
    data_.why = m.why;
    data_.busy = true;
    if (!unit_.all([](const MoveOperation* one) { return one->data_.busy; })) return;
    const bool enough = held_long_enough();
    together(S::gating, [enough](MoveOperation& one) {
        one.data_.holds = !enough;
        if (enough)
            one.let_fences_go_on(S::holding, [&one] { one.try_hold(); });
        else
            one.retry_after(one.job_.settings.gate_retry_us, [&one] { one.send_gate(); });
    });
}

void MoveOperation::on_exported(const Exported& m) {
    data_.exported = true;
    data_.bytes = m.bytes;
    data_.rounds = m.rounds;
    transfer_goes_on();
}

// Live: the skeleton has gone. Until little is left the rank is as any other.
void MoveOperation::on_running(const RankRunning& m) {
    if (m.location) job_.publish({*m.location});
    if (!change(S::copying)) return;
    data_.gated = data_.holds = data_.exported = data_.held = false;
    job_.fences.release(seq());
    if (data_.converged) on_converged();
}

// It may be said before the rank is back.
void MoveOperation::on_converged() {
    data_.converged = true;
    if (data_.state != S::copying || !change(S::holding)) return;
    data_.converged = false;
    data_.ping = job_.liveness.ping_now();
    held_anew();
    try_hold();
}

void MoveOperation::on_progress(const TransferProgress& m) {
    data_.bytes = std::max(data_.bytes, m.bytes);
    data_.total = std::max(data_.total, m.total);
    tell_progress();
    if (data_.state == S::copying) wait_on();
    transfer_goes_on();
}

// exported and progress from A, held and progress from B; `held` may overtake `gated`.
void MoveOperation::transfer_goes_on() {
    if (data_.state != S::transferring) return;
    together(S::transferring, [](MoveOperation& one) { one.wait_on(); });
    decide_if_whole();
}

void MoveOperation::decide_if_whole() {
    const auto whole = [](const MoveOperation* one) {
        return one->data_.state == S::transferring && one->data_.exported && one->data_.held;
    };
    if (unit_.all(whole)) together(S::transferring, [](MoveOperation& one) { one.decide(); });
}

void MoveOperation::decide() {
    if (!passes(P::coordinator_decides) || !change(S::switching)) return;
    job_.epochs.decide(seq());
    log::info("decided: rank {} is at {} from epoch {} on", data_.rank, data_.to_name, data_.epoch);
    const auto live = job_.liveness.live_nodes();
    job_.fences.decide(seq(), {live.begin(), live.end()});
    job_.adapter.tell_all(Switch{seq(), data_.rank, data_.from, data_.to, data_.epoch});
}

void MoveOperation::vote(NodeId from, int votes) {
    const bool counted = job_.fences.vote(seq(), from, votes);
    const bool last = counted && job_.fences.unanswered(seq()).empty();
    if (last && data_.state == S::switching) all_switched();
}

void MoveOperation::all_switched() {
    if (!change(S::going)) return;
    (void)fault::pass(P::coordinator_goes);
    job_.adapter.tell(data_.to, Go{seq(), data_.rank, data_.agent});
}

// After the decision nothing waits for a daemon that does not matter.
void MoveOperation::switch_expired() {
    const std::set<NodeId> unanswered = job_.fences.unanswered(seq());
    if (unanswered.contains(data_.to)) {
        return lose(fmt::format("node {} did not take it over in time", data_.to_name));
    }
    for (NodeId node : unanswered) {
        if (!job_.liveness.hosts_ranks(node)) {
            job_.liveness.give_up(node, true);  // node_lost() follows
            continue;
        }
        log::error(
            "node {} hosts ranks and has not confirmed the move of rank {}: the job's fences "
            "wait for it",
            job_.liveness.name_of(node), data_.rank);
    }
    job_.fences.wait_no_more(seq());
    if (data_.state == S::switching) all_switched();
}

void late_move_message(Job& job, NodeId from, const schema::Received& m) {
    if (m.is<Switched>()) job.fences.vote(m.seq(), from, m.as<Switched>().votes);
    if (m.is<Failed>() && m.as<Failed>().stage == Stage::switching)
        job.fences.vote(m.seq(), from, 0);
    if (m.is<Done>() && m.as<Done>().location) job.publish({*m.as<Done>().location});
    if (m.is<Aborted>() && m.as<Aborted>().location) job.publish({*m.as<Aborted>().location});
    log::debug("late message {} of operation {} from node {}", m.name(), m.seq(), from);
}

// It is stopped, or traced, or has left MPI.
void MoveOperation::on_standstill(NodeId from, const std::string& why) {
    if (from != data_.from && from != data_.to) return;
    if (is_decided()) return from == data_.to ? wait_on() : void();
    data_.still = true;
    if (data_.state != S::aborting) return abort(why);
    data_.why = why;
    set_limit(job_.settings.still_us);
}

std::string MoveOperation::what_failed(NodeId from, const Failed& m) const {
    if (m.stage == Stage::target)
        return fmt::format("{} cannot take it: {} (provide that there, or choose another node)",
                           data_.to_name, m.why);
    if (m.stage == Stage::live)
        return fmt::format("it cannot move live: {} (--mode stop may move it)", m.why);
    return fmt::format("{}: {} at {}", name_of(m.stage), m.why, job_.liveness.name_of(from));
}

// A rank that ends takes both ends of its move with it, and what they say of that may be heard
// first.
void MoveOperation::note_end(const Failed& m) {
    if (m.stage == Stage::wrapper) data_.end = m.why + ", and the rank has ended";
    if (m.stage != Stage::rank) return;
    data_.ended = true;
    data_.end = m.why;
}

// What cannot go live may move by stop; by auto so may what went wrong on its way, unless something
// else was wrong before. Who of the two is heard first makes no difference: B has heard from A why
// that gives up, or sees no more than that it does; and A's own word counts.
void MoveOperation::look_for_stop(NodeId from, const Failed& m) {
    if (is_decided() || !is_live()) return;
    const bool is_source = from == data_.from;
    if (is_source && m.stage == Stage::check) return data_.not_live.clear();  // nor by stop
    if (data_.state == S::aborting && !(is_source && m.stage == Stage::live)) return;
    // What B lacks has been asked before; it is asked again by stop, before the rank is stopped.
    const bool on_its_way = m.stage == Stage::exporting || m.stage == Stage::importing ||
                            (m.stage == Stage::target && data_.connected);
    if (m.stage == Stage::live || (order_.chosen && on_its_way)) data_.not_live = m.why;
}

void MoveOperation::on_failed(NodeId from, const Failed& m) {
    if (m.stage == Stage::standstill) return on_standstill(from, m.why);
    if (from == data_.from) note_end(m);
    look_for_stop(from, m);
    const std::string whole = what_failed(from, m);
    switch (data_.state) {
        case S::aborting:
            return on_failed_again(from, m, whole);
        case S::switching:
            if (from == data_.to) return lose(whole);
            if (m.stage != Stage::switching)
                return;  // of before the decision; `switched` will come
            log::error("the bookkeeping of rank {}'s move failed: {}", data_.rank, whole);
            return vote(from, 0);
        case S::going:
            if (from == data_.to) return lose(whole);
            if (m.stage == Stage::switching) vote(from, 0);
            return;
        default:
            if (from == data_.from || from == data_.to) abort(whole);
    }
}

// While aborting: A may have failed by itself before our `abort` reached it. Only a rank that could
// not attach again did not come back; after anything else `aborted` follows.
void MoveOperation::on_failed_again(NodeId from, const Failed& m, const std::string& whole) {
    if (from != data_.from) return;
    if (m.stage == Stage::attach) {
        data_.harmed = true;
        data_.why += "; and it did not come back: " + whole;
        return finish(S::failed);
    }
    // B saw its stream end because A refused: what A found is the reason.
    if (m.stage == Stage::check || m.stage == Stage::live) data_.why = whole;
}

void MoveOperation::on_done(const Done& m) {
    data_.downtime = job_.settings.now() - data_.gate_sent;
    data_.moved = true;
    if (m.location) job_.publish({*m.location});
    finish(S::done);
}

void MoveOperation::on_aborted(const Aborted& m) {
    data_.ended |= m.ended;
    if (m.location) job_.publish({*m.location});
    if (m.unreported) {
        const std::string told =
            fmt::format("rank {} was killed at {} while it moved", data_.rank, data_.from_name);
        finish(S::failed);
        return job_.lose_rank(data_.rank, told);
    }
    finish(S::failed);
}

void MoveOperation::message(NodeId from, const schema::Received& m) {
    if (m.is<Failed>()) return on_failed(from, m.as<Failed>());
    if (m.is<Switched>()) return vote(from, m.as<Switched>().votes);
    const S state = data_.state;
    const bool taken = (from == data_.from && from_source(m)) ||
                       (!is_over() && from == data_.to && from_target(m));
    if (!taken)
        log::debug("message {} from node {} does not fit state {}", m.name(), from,
                   move_states.name(state));
}

// What A says. False: it does not fit the state.
bool MoveOperation::from_source(const schema::Received& m) {
    const S state = data_.state;
    switch (m.type<DaemonMessage>()) {
        case DaemonMessage::connected:
            if (state != S::connecting) return false;
            return on_connected(m.as<Connected>()), true;
        case DaemonMessage::busy:
            return state == S::gating && (on_busy(m.as<Busy>()), true);
        case DaemonMessage::gated:
            if (state != S::gating) return false;
            if (m.as<RankGated>().agent) data_.agent = m.as<RankGated>().agent;
            data_.gated = true;
            if (change(S::transferring)) decide_if_whole();
            return true;
        case DaemonMessage::exported:
            return state == S::transferring && (on_exported(m.as<Exported>()), true);
        case DaemonMessage::progress:
            if (state != S::gating && state != S::transferring && state != S::copying) return false;
            return on_progress(m.as<TransferProgress>()), true;
        case DaemonMessage::running:
            return state == S::transferring && is_live() && (on_running(m.as<RankRunning>()), true);
        case DaemonMessage::converged:
            if (state != S::transferring && state != S::copying) return false;
            return on_converged(), true;
        case DaemonMessage::aborted:
            return state == S::aborting && (on_aborted(m.as<Aborted>()), true);
        default:
            return false;
    }
}

// What B says.
bool MoveOperation::from_target(const schema::Received& m) {
    const S state = data_.state;
    const bool before =
        state == S::gating || state == S::transferring || (state == S::copying && is_live());
    switch (m.type<DaemonMessage>()) {
        case DaemonMessage::ready:
            return state == S::preparing && (on_ready(m.as<Ready>()), true);
        case DaemonMessage::held:
            if (!before) return false;
            data_.held = true;
            return transfer_goes_on(), true;
        case DaemonMessage::progress:
            return before && (on_progress(m.as<TransferProgress>()), true);
        case DaemonMessage::done:
            return state == S::going && (on_done(m.as<Done>()), true);
        default:
            return false;
    }
}

std::string MoveOperation::limit_text() const {
    const auto seconds = static_cast<double>(limit_us()) / 1e6;
    const int64_t waited = waited_us() / 1'000'000;
    switch (data_.state) {
        case S::preparing:
            return fmt::format("{} was not ready within {} s", data_.to_name, waited);
        case S::connecting:
            return fmt::format("{} could not reach {} within {} s", data_.from_name, data_.to_name,
                               waited);
        case S::holding: {
            const std::string silent = job_.liveness.first_silent(data_.ping);
            if (!silent.empty())
                return fmt::format("node {} did not answer for {} s", silent, seconds);
            return fmt::format("the job's fences were never quiet for {} s", seconds);
        }
        case S::gating:
            return fmt::format("the rank could not be stopped within {} s{}{}", seconds,
                               data_.why.empty() ? "" : ": ", data_.why);
        case S::transferring:
        case S::copying:
            return fmt::format("nothing of its ghost moved for {} s", seconds);
        case S::going:
            return fmt::format("it did not wake at {} in {} s", data_.to_name, waited);
        default:
            return fmt::format("no answer within {} s", seconds);
    }
}

int64_t MoveOperation::waited_us() const {
    return job_.settings.now() - data_.entered;
}

// Whose turn it is answers: a node on which processes wait for processors, or a disk.
bool MoveOperation::is_slow() const {
    const S at = data_.state;
    if (at != S::preparing && at != S::connecting && at != S::going) return false;
    const NodeId acts = at == S::connecting ? data_.from : data_.to;
    return !job_.liveness.is_silent(acts) && waited_us() < job_.settings.slow_us;
}

void MoveOperation::entered() {
    data_.entered = job_.settings.now();
}

void MoveOperation::expired() {
    if (is_slow()) return wait_on();
    switch (data_.state) {
        case S::switching:
            return switch_expired();
        case S::going:
            return lose(limit_text());
        case S::aborting:
            // A rank that has not left its server opens its gates by itself; one that is still
            // comes back when it can act again.
            data_.unconfirmed = true;
            data_.harmed = data_.gated && !data_.still;
            if (!data_.still)
                data_.why +=
                    fmt::format("; {} did not confirm that the rank goes on{}", data_.from_name,
                                data_.harmed ? "" : " (it does by itself, within 5 minutes)");
            return finish(S::failed);
        default:
            return abort(limit_text());
    }
}

void MoveOperation::impossible(S) {
    const bool may_abort = move_states.allows(data_.state, S::aborting);
    if (!is_decided() && may_abort) abort("a fault of Ghost's own (see mpirun's log)");
}

bool MoveOperation::passes(P point) {
    return fault::passes(point, [this](const std::string& why) { abort(why); });
}

void MoveOperation::abort(const std::string& why) {
    data_.why = why;
    const bool source_knows = data_.state != S::preparing;
    const Abort order{seq(), data_.rank};
    if (job_.liveness.alive(data_.to)) job_.adapter.tell(data_.to, order);
    if (!source_knows) return finish(S::failed);
    if (!change(S::aborting)) return;
    if (data_.still) set_limit(job_.settings.still_us);
    job_.adapter.tell(data_.from, order);
    break_unit();
}

// The others of the unit stay too. What is decided is not for them any more.
void MoveOperation::break_unit() {
    if (unit_.broken_by) return;
    unit_.broken_by = data_.rank;
    const std::string why =
        fmt::format("it moves with rank {}, which does not: {}", data_.rank, data_.why);
    for (MoveOperation* one : std::vector(unit_.members)) {
        if (one == this || one->is_decided() || one->data_.state == S::aborting) continue;
        if (one->data_.state != S::checking) {
            one->abort(why);
        } else {
            one->data_.why = why;
            one->finish(S::refused);
        }
    }
}

// After the decision: there is no copy to go back to.
void MoveOperation::lose(const std::string& why) {
    data_.harmed = true;
    data_.why = why;
    const std::string told = fmt::format("rank {} is lost on its way from {} to {}: {}", data_.rank,
                                         data_.from_name, data_.to_name, why);
    finish(S::failed);
    job_.lose_rank(data_.rank, told);
}

void MoveOperation::node_lost(NodeId node) {
    const std::string lost = fmt::format("node {} is lost", job_.liveness.name_of(node));
    if (is_decided()) {
        if (node == data_.to) return lose(lost);
        // The fences know.
        if (data_.state == S::switching && job_.fences.unanswered(seq()).empty()) all_switched();
        return;
    }
    if (node == data_.from) {
        data_.why = lost + ", and the rank with it";
        data_.harmed = true;
        if (job_.liveness.alive(data_.to)) job_.adapter.tell(data_.to, Abort{seq(), data_.rank});
        return finish(S::failed);
    }
    if (node == data_.to && data_.state != S::aborting) abort(lost);
}

// Nothing else of what was said is why then.
void MoveOperation::look_for_end() {
    if (is_decided() || data_.harmed) return;
    for (const RankInfo& info : job_.adapter.ranks())
        data_.ended |= info.rank == data_.rank && info.life == RankLife::ended;
    if (!data_.ended) return;
    if (has_ended(job_)) data_.end = job_has_ended;
    if (data_.end.empty()) data_.end = fmt::format("rank {} has ended", data_.rank);
    log::info("{}: {}; said before that: {}", describe(), data_.end, data_.why);
}

std::string MoveOperation::failure() const {
    const std::string& why = data_.ended ? data_.end : data_.why;
    std::string text = fmt::format("rank {} was not moved from {} to {}: {}", data_.rank,
                                   data_.from_name, data_.to_name, why);
    if (data_.ended || data_.harmed) return text;
    text += "; the job is unharmed";
    if (data_.still || data_.unconfirmed) return text;
    return text + fmt::format(": rank {} goes on at {}", data_.rank, data_.from_name);
}

void MoveOperation::finish(S state) {
    std::erase(unit_.members, this);
    if (state != S::done) break_unit();
    if (state == S::failed) {
        look_for_end();
        data_.why = failure();
    }
    job_.fences.release(seq());
    job_.epochs.give_back(seq());
    conclude(state);
    hand_over();
}

bool MoveOperation::undo(const std::string& why) {
    if (is_decided()) return false;
    if (data_.state == S::checking) {
        data_.why = fmt::format("rank {} was not moved: {}", data_.rank, why);
        finish(S::refused);
    } else if (data_.state != S::aborting) {
        abort(why);
    }
    return true;
}

void MoveOperation::stop(const std::string& why) {
    data_.why = why;
    hand_over();
}

}  // namespace ghost::plugin
