// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/snapshotter.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "base/log.hpp"
#include "pmix-plugin/coordinator/manifest_of.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {

using S = SnapshotState;

namespace {

constexpr int most_abort_tries = 4;

}  // namespace

// --- state ---

void Snapshotter::change(S next) {
    SnapshotRun& r = *run_;
    if (!may_follow(r.state, next)) {
        log::error("bug: snapshot {} cannot go from {} to {}", r.seq, name(r.state), name(next));
    }
    log::info("snapshot {} {}: {} -> {}", r.seq, r.name, name(r.state), name(next));
    if (is_urgent(next) != is_urgent(r.state)) c_.adapter.hurry(is_urgent(next));
    r.state = next;
    r.attempt = 0;
    r.bytes = r.total = 0;
    if (retry_) c_.adapter.cancel(*retry_);
    retry_.reset();
    arm_limit();
    if (!is_final(next) && progress_) progress_(r);
}

void Snapshotter::arm_limit() {
    if (limit_) c_.adapter.cancel(*limit_);
    limit_.reset();
    const int64_t us = limit_of(run_->state, c_.settings);
    if (us == 0) return;
    limit_ = c_.adapter.after(us, [this] {
        limit_.reset();
        expired();
    });
}

void Snapshotter::retry_after(int64_t us, void (Snapshotter::*step)()) {
    if (retry_) return;
    retry_ = c_.adapter.after(us, [this, step] {
        retry_.reset();
        (this->*step)();
    });
}

void Snapshotter::order(DaemonMessage step) {
    order(step, run_->seq, run_->attempt);
}

void Snapshotter::order(DaemonMessage step, uint64_t seq, uint64_t attempt) {
    const StepOrder order{seq, attempt, c_.liveness.tree()};
    c_.adapter.broadcast(schema::encode_as(between_daemons, step, order));
}

// --- 0: checks and the folder ---

std::optional<std::string> Snapshotter::check() {
    SnapshotRun& r = *run_;
    if (!then_named(r.then)) {
        return fmt::format("\"{}\" cannot follow a snapshot: continue, stop or kill can", r.then);
    }
    if (auto why = c_.obstacle()) return why;
    if (auto why = guests_are_there()) return why;
    if (unconfirmed_) return "not every node has answered since the last one failed";
    const auto ranks = c_.adapter.ranks();
    if (!c_.adapter.job_running() || ranks.empty()) {
        return "the job is not running: it has ended, or has not started yet (then try again in a "
               "moment)";
    }
    r.ranks = ranks.size();
    for (const RankInfo& info : ranks) {
        const bool known = c_.directory.find(info.rank) != nullptr;
        if (known && !info.running) return fmt::format("rank {} has ended", info.rank);
    }
    return std::nullopt;
}

// A snapshot is of one job: a rank begun again from it would wait for guests that nobody brings
// back.
std::optional<std::string> Snapshotter::guests_are_there() const {
    const size_t guests = c_.adapter.guests();
    if (guests == 0) return std::nullopt;
    return fmt::format(
        "{} processes that the job has spawned (MPI_Comm_spawn) run, and cannot be in a snapshot: "
        "try again when they have ended",
        guests);
}

void Snapshotter::begin(const SnapshotOrder& order, Progress progress, Finished finished) {
    run_.emplace();
    SnapshotRun& r = *run_;
    progress_ = std::move(progress);
    finished_ = std::move(finished);
    r.started = c_.settings.now();
    r.then = order.then.empty() ? "continue" : order.then;
    r.asked_by = order.asked_by;
    const SnapshotPlaces places = places_for(c_.policy, order.to);
    r.folder = places.folder;
    r.second = places.second;
    r.compress = c_.policy.compress;
    r.rate = c_.policy.rate;
    if (auto why = check()) {
        r.why = *why;
        return finish(S::refused);
    }
    r.seq = ++c_.last_seq;
    r.facts = c_.adapter.job_facts();
    const bool full = c_.policy.full_every > 0 && since_full_ >= c_.policy.full_every;
    r.incremental = c_.policy.incremental && !full && last_ && last_->folder == r.folder &&
                    last_->second == r.second;
    open();
}

struct Snapshotter::Opened {
    std::string folder, second;
    std::string name;
    std::string why;
    bool last_is_whole = false;  // an incremental one may stand on it
};

namespace {

// Of a snapshot whose ghosts are on the nodes' own disks only the manifest can be looked at here.
bool is_whole(const Snapshot& one, bool node_local) {
    return one.whole || (node_local && one.manifest);
}

// A folder of snapshots that is there and ours: its real path.
Result<std::string> take_folder(const std::string& folder, JobLock& lock, const std::string& job) {
    auto real = open_snapshot_folder(folder);
    GHOST_TRY(real);
    GHOST_TRY(lock.take(*real, job));
    return real;
}

Status begin_snapshot(const std::string& folder, const std::string& name,
                      const std::string& secret) {
    auto made = create_partial(folder, name);
    GHOST_TRY(made);
    return write_secret(*made, secret);
}

}  // namespace

void Snapshotter::open() {
    change(S::opening);
    auto job = [folder = run_->folder, second = run_->second, job = c_.adapter.job_name(),
                secret = c_.adapter.secret(), lock = c_.lock,
                last = last_ ? *last_ : SnapshotRun()] {
        auto real = take_folder(folder, *lock, job);
        if (!real.ok()) return Opened{folder, second, {}, real.error().message()};
        Opened out{*real, {}, {}, {}};
        // Never that of a snapshot there was, though the folder may have been removed meanwhile.
        auto number = next_snapshot_number(*real, job);
        if (!second.empty()) {
            auto other = take_folder(second, *lock, job);
            if (!other.ok()) return Opened{*real, second, {}, other.error().message()};
            out.second = *other;
            number = std::max(number, next_snapshot_number(*other, job));
        }
        if (const auto known = parse_snapshot_name(last.name))
            number = std::max(number, known->number + 1);
        out.name = snapshot_name(job, number);
        auto begun = begin_snapshot(out.folder, out.name, secret);
        if (begun.ok() && !second.empty()) begun = begin_snapshot(out.second, out.name, secret);
        if (!begun.ok()) {
            out.why = begun.error().message();
            return out;
        }
        const auto there = [&](const std::string& in, bool node_local) {
            return is_whole(look_at_snapshot(in + "/" + last.name), node_local);
        };
        out.last_is_whole = !last.name.empty() && there(out.folder, last.node_local) &&
                            (second.empty() || there(out.second, last.second_local));
        return out;
    };
    c_.background.run<Opened>(job, [this, seq = run_->seq](Opened opened) {
        if (run_ && run_->seq == seq) this->opened(std::move(opened));
    });
}

void Snapshotter::opened(Opened opened) {
    SnapshotRun& r = *run_;
    // The real path: a link may lead elsewhere tomorrow.
    if (last_ &&
        (last_->folder != opened.folder || last_->second != opened.second || !opened.last_is_whole))
        r.incremental = false;
    r.folder = std::move(opened.folder);
    r.second = std::move(opened.second);
    r.name = std::move(opened.name);
    r.folder_made = !r.name.empty();
    if (!opened.why.empty()) {
        r.why = std::move(opened.why);
        return discard();
    }
    change(S::preparing);
    send_prepare();
}

// --- 1: prepare ---

void Snapshotter::send_prepare() {
    SnapshotRun& r = *run_;
    r.told_nodes = true;
    ++r.attempt;
    c_.adapter.tell_all(SnapPrepare{r.seq, r.attempt, c_.liveness.tree(), r.name, r.folder,
                                    r.second, r.incremental, last_ ? last_->seq : 0, r.compress,
                                    r.rate, then_named(r.then).value_or(Then::go_on)});
}

// A rank that is in MPI_Init or MPI_Finalize is waited for; one that is unknown has not begun.
void Snapshotter::on_ready(const StepAnswer& answer) {
    SnapshotRun& r = *run_;
    r.node_local = answer.own_folders > 0;
    r.second_local = answer.own_seconds > 0;
    if (answer.busy_ranks == 0 && answer.ranks == r.ranks) {
        change(S::pinging);
        ++r.attempt;
        return order(DaemonMessage::snap_ping);
    }
    r.why = describe(answer.busy, answer.busy_ranks);
    if (r.why.empty()) r.why = "not every rank has started";
    if (r.busy_since == 0) r.busy_since = c_.settings.now();
    r.deferred = true;
    if (c_.settings.now() - r.busy_since >= c_.settings.defer_us) return abort(r.why);
    arm_limit();
    retry_after(c_.settings.defer_retry_us, &Snapshotter::send_prepare);
}

// --- 2, 3: fences and gates ---

void Snapshotter::try_hold() {
    if (!c_.adapter.hold_fences()) {
        return retry_after(c_.settings.hold_retry_us, &Snapshotter::try_hold);
    }
    run_->fences_held = true;
    change(S::gating);
    send_gate();
}

void Snapshotter::send_gate() {
    SnapshotRun& r = *run_;
    r.ungating = false;
    r.gate_sent = c_.settings.now();
    ++r.attempt;
    order(DaemonMessage::snap_gate);
}

void Snapshotter::on_gated(const StepAnswer& answer) {
    SnapshotRun& r = *run_;
    if (answer.busy_ranks == 0) {
        // Spawned since the beginning; from here on nobody can.
        if (auto why = guests_are_there()) return abort(*why);
        change(S::standing);
        return order(DaemonMessage::snap_close);
    }
    r.why = describe(answer.busy, answer.busy_ranks);
    r.ungating = true;
    order(DaemonMessage::snap_ungate);
}

// --- 4, 5: the pause ---

void Snapshotter::publish(const StepAnswer& answer) {
    for (const kernet::Location& location : answer.locations) c_.publish(location);
}

void Snapshotter::on_resumed(const StepAnswer& answer) {
    run_->pause = c_.settings.now() - run_->gate_sent;
    publish(answer);
    // Trees that stand until the job ends must find their fences as they were.
    if (run_->then != "kill") release();
    change(S::writing);
}

// --- 6, 7: written, complete ---

namespace {

// What rotation removes.
std::vector<std::string> old_ones(std::vector<Snapshot> all, const std::string& job, size_t keep,
                                  bool node_local) {
    for (Snapshot& one : all) one.whole = is_whole(one, node_local);
    return removable(all, job, keep);
}

// Somebody may have removed what it stands on, while it was made.
std::optional<std::string> wrong_with(const std::vector<Snapshot>& all, const std::string& name,
                                      bool node_local) {
    for (const Snapshot& one : all) {
        if (one.name != name) continue;
        if (is_whole(one, node_local)) return std::nullopt;
        return one.why;
    }
    return fmt::format("cannot find {}: it was removed while it was completed", name);
}

}  // namespace

struct Snapshotter::Completed {
    std::string why;
    std::vector<std::string> old, old_seconds;  // may be removed
};

namespace {

// Makes it complete in one folder. What may be removed there then.
Result<std::vector<std::string>> complete_in(const std::string& folder, const std::string& name,
                                             const Manifest& manifest, size_t keep,
                                             bool node_local) {
    GHOST_TRY(write_manifest(folder + "/" + partial_name(name), manifest));
    GHOST_TRY(commit_snapshot(folder, name));
    auto all = list_snapshots(folder, manifest.job);
    GHOST_TRY(all);
    if (auto wrong = wrong_with(*all, name, node_local)) return make_error(Code::refused, *wrong);
    return old_ones(std::move(*all), manifest.job, keep, node_local);
}

void remove_all(const std::string& folder, const std::vector<std::string>& names) {
    for (const std::string& name : names)
        if (auto gone = remove_snapshot(folder, name); !gone.ok())
            log::warning("{}", gone.error().message());
}

// A folder that was renamed and could not be synced is no snapshot either.
Status discard_in(const std::string& folder, const std::string& name) {
    GHOST_TRY(discard_partial(folder, name));
    return remove_snapshot(folder, name);
}

}  // namespace

void Snapshotter::complete(StepAnswer answer) {
    SnapshotRun& r = *run_;
    r.written = std::move(answer);
    if (r.written.written.size() != r.ranks) {
        return abort(
            fmt::format("{} of {} ranks said what they wrote", r.written.written.size(), r.ranks));
    }
    change(S::completing);
    r.lasted = c_.settings.now() - r.started;
    Manifest manifest = manifest_of(r, c_.adapter.job_name(), c_.epoch());
    r.kind = manifest.kind;
    r.time = manifest.time;
    r.written.written.clear();
    auto job = [manifest = std::move(manifest), folder = r.folder, second = r.second, name = r.name,
                keep = c_.policy.keep, node_local = r.node_local, second_local = r.second_local] {
        Completed out;
        auto done = complete_in(folder, name, manifest, keep, node_local);
        if (!done.ok()) return Completed{done.error().message(), {}, {}};
        out.old = std::move(*done);
        if (second.empty()) return out;
        done = complete_in(second, name, manifest, keep, second_local);
        if (!done.ok()) return Completed{done.error().message(), {}, {}};
        out.old_seconds = std::move(*done);
        return out;
    };
    c_.background.run<Completed>(std::move(job), [this, seq = r.seq](Completed completed) {
        if (run_ && run_->seq == seq) this->completed(std::move(completed));
    });
}

void Snapshotter::completed(Completed completed) {
    SnapshotRun& r = *run_;
    if (!completed.why.empty()) return abort(completed.why);
    c_.adapter.tell_all(SnapEnd{r.seq, completed.old, completed.old_seconds});
    since_full_ = r.kind == "full" ? 0 : since_full_ + 1;
    stopped_ = r.then == "stop";
    c_.background.run([folder = r.folder, second = r.second, done = std::move(completed)] {
        remove_all(folder, done.old);
        remove_all(second, done.old_seconds);
    });
    finish(S::done);
}

void Snapshotter::continue_job() {
    if (!std::exchange(stopped_, false)) return;
    c_.adapter.tell_all(Continue{});
}

// --- messages ---

void Snapshotter::message(const schema::Received& m) {
    if (unconfirmed_ && m.seq() == unconfirmed_->seq) return confirmed(m);
    if (!run_ || m.seq() != run_->seq) return;
    if (m.is<StepProgress>()) return progressed(m.as<StepProgress>());
    const StepUp& up = m.as<StepUp>();
    const bool settled = run_->state == S::standing || run_->state == S::writing;
    if (!settled && up.attempt != run_->attempt) return;
    step_answered(up.step, up.answer);
}

void Snapshotter::progressed(const StepProgress& m) {
    SnapshotRun& r = *run_;
    // `standing`: a rank too large to be copied is written while it stands.
    if (r.state != S::preparing && r.state != S::standing && r.state != S::writing) return;
    if (m.bytes > r.bytes) arm_limit();
    r.bytes = m.bytes;
    r.total = m.total;
    if (progress_) progress_(r);
}

void Snapshotter::step_answered(ParticipantStep step, StepAnswer answer) {
    using P = ParticipantStep;
    SnapshotRun& r = *run_;
    const bool ungated = step == P::ungated && r.state == S::gating && r.ungating;
    const bool gated = step == P::gated && r.state == S::gating && !r.ungating;
    const bool fits = (step == P::ready && r.state == S::preparing) ||
                      (step == P::here && r.state == S::pinging) || gated || ungated ||
                      (step == P::resumed && r.state == S::standing) ||
                      (step == P::written && r.state == S::writing);
    if (step == P::aborted && r.state == S::aborting) {
        publish(answer);
        if (answer.failed_ranks > 0) {
            r.harmed = true;
            r.why +=
                "; and not every rank came back: " + describe(answer.failed, answer.failed_ranks);
        }
        return discard();
    }
    if (!fits) return;
    if (answer.failed_ranks > 0) return refuse_for(answer);
    if (step == P::ready) return on_ready(answer);
    if (step == P::here) {
        change(S::holding);
        return try_hold();
    }
    if (gated) return on_gated(answer);
    if (ungated) return retry_after(c_.settings.gate_retry_us, &Snapshotter::send_gate);
    if (step == P::resumed) return on_resumed(answer);
    complete(std::move(answer));
}

void Snapshotter::refuse_for(const StepAnswer& answer) {
    run_->deferred = false;
    if (run_->state == S::standing) publish(answer);
    abort(describe(answer.failed, answer.failed_ranks));
}

// --- limits, deaths, the end ---

std::string Snapshotter::limit_text() const {
    const SnapshotRun& r = *run_;
    const auto seconds = static_cast<double>(limit_of(r.state, c_.settings)) / 1e6;
    switch (r.state) {
        case S::pinging:
            return fmt::format("not every node answered for {} s", seconds);
        case S::holding:
            return fmt::format("the job's fences were never quiet for {} s", seconds);
        case S::gating:
            return fmt::format("the ranks could not be stopped together within {} s{}{}", seconds,
                               r.why.empty() ? "" : ": ", r.why);
        case S::standing:
            return fmt::format("not every rank was back within {} s", seconds);
        default:
            return fmt::format("nothing was heard for {} s while {}", seconds, name(r.state));
    }
}

void Snapshotter::expired() {
    SnapshotRun& r = *run_;
    if (r.state != S::aborting) {
        // Ranks that were never outside of their calls: another time may be better.
        r.deferred = r.state == S::gating || r.state == S::holding;
        return abort(limit_text());
    }
    if (r.attempt < most_abort_tries) {
        ++r.attempt;
        order(DaemonMessage::snap_abort);
        return arm_limit();
    }
    r.harmed = true;
    r.why += "; and not every node confirmed that its ranks go on";
    unconfirmed_ = Unconfirmed{r.seq, r.attempt, 0};
    remind();
    discard();
}

void Snapshotter::remind() {
    ++unconfirmed_->attempt;
    order(DaemonMessage::snap_abort, unconfirmed_->seq, unconfirmed_->attempt);
    unconfirmed_->again = c_.adapter.after(c_.settings.abort_us, [this] { remind(); });
}

void Snapshotter::confirmed(const schema::Received& m) {
    if (!m.is<StepUp>() || m.as<StepUp>().step != ParticipantStep::aborted) return;
    log::warning("every node has confirmed the end of the snapshot that failed");
    publish(m.as<StepUp>().answer);
    c_.adapter.cancel(unconfirmed_->again);
    unconfirmed_.reset();
}

void Snapshotter::abort(const std::string& why) {
    run_->why = why;
    change(S::aborting);
    ++run_->attempt;
    order(DaemonMessage::snap_abort);
}

void Snapshotter::discard() {
    release();
    change(S::discarding);
    SnapshotRun& r = *run_;
    const S end = r.deferred && !r.harmed ? S::deferred : S::failed;
    if (!r.folder_made) return finish(end);
    using Done = std::string;
    c_.background.run<Done>(
        [folder = r.folder, second = r.second, name = r.name] {
            auto gone = discard_in(folder, name);
            if (!second.empty())
                if (auto also = discard_in(second, name); gone.ok()) gone = also;
            return gone.ok() ? Done() : gone.error().message();
        },
        [this, seq = r.seq, end](const Done& why) {
            if (!why.empty()) log::warning("{}", why);
            if (run_ && run_->seq == seq) finish(end);
        });
}

void Snapshotter::node_lost(NodeId node) {
    if (!run_) return;
    switch (run_->state) {
        case S::checking:
        case S::opening:
        case S::completing:
        case S::discarding:
            return;
        case S::aborting:  // by another tree
            ++run_->attempt;
            order(DaemonMessage::snap_abort);
            return;
        default:
            run_->deferred = false;
            abort(fmt::format("node {} is lost", c_.liveness.name_of(node)));
    }
}

void Snapshotter::release() {
    if (std::exchange(run_->fences_held, false)) c_.adapter.release_fences();
}

void Snapshotter::finish(S state) {
    SnapshotRun& r = *run_;
    release();
    if (state == S::deferred) r.why = "put off: " + r.why;
    if (state != S::done) {
        r.why = fmt::format("no snapshot was made: {}{}", r.why,
                            r.harmed ? "" : "; the job is unharmed and goes on");
    }
    r.lasted = c_.settings.now() - r.started;
    change(state);
    SnapshotRun result = std::move(*run_);
    Finished finished = std::exchange(finished_, nullptr);
    run_.reset();
    progress_ = nullptr;
    if (state == S::done) last_ = result;
    if (finished) finished(result);
    if (state == S::done && result.then == "kill") {
        c_.adapter.end_job(c_.settings.kill_status,
                           fmt::format("ghost: the job ended after its snapshot {}/{}",
                                       result.folder, result.name));
    }
}

void Snapshotter::stop() {
    if (unconfirmed_) c_.adapter.cancel(unconfirmed_->again);
    unconfirmed_.reset();
    if (limit_) c_.adapter.cancel(*limit_);
    if (retry_) c_.adapter.cancel(*retry_);
    limit_.reset();
    retry_.reset();
    if (!run_) return;
    if (is_urgent(run_->state)) c_.adapter.hurry(false);
    run_->state = S::failed;
    run_->why = "no snapshot was made: mpirun is ending";
    SnapshotRun result = std::move(*run_);
    Finished finished = std::exchange(finished_, nullptr);
    run_.reset();
    if (finished) finished(result);
}

}  // namespace ghost::plugin
