// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/snapshot.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "base/fault.hpp"
#include "pmix-plugin/coordinator/operations/parity.hpp"
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {

using S = SnapshotState;
using P = fault::Point;

namespace {

constexpr int most_abort_tries = 4;

}  // namespace

SnapshotOperation::SnapshotOperation(Job& job, SnapshotOrder order, Progress progress,
                                     Finished finished)
    : StagedOperation(job, std::move(progress), std::move(finished)), order_(std::move(order)) {}

std::string SnapshotOperation::describe() const {
    return fmt::format("snapshot {} {}", data_.seq, data_.name);
}

void SnapshotOperation::entered() {
    data_.attempt = 0;
    data_.bytes = data_.total = 0;
}

void SnapshotOperation::show(Json& ps) const {
    ps["snapshotting"] = {{"name", data_.name},
                          {"phase", snapshot_states.name(data_.state)},
                          {"bytes", data_.bytes},
                          {"total", data_.total}};
}

void SnapshotOperation::tell_step(DaemonMessage step) {
    ++data_.attempt;
    order_step(job_.adapter, job_.liveness, step, data_.seq, data_.attempt);
}

template <typename T>
void SnapshotOperation::run(std::function<T()> work, void (SnapshotOperation::*then)(T)) {
    std::weak_ptr<bool> alive = alive_;
    job_.background.run<T>(std::move(work), [this, alive, then](T value) {
        if (!alive.expired() && !is_over()) (this->*then)(std::move(value));
    });
}

// --- 0: checks and the folder ---

std::optional<std::string> SnapshotOperation::check() {
    SnapshotRun& r = data_;
    if (!then_named(r.then)) {
        return fmt::format("\"{}\" cannot follow a snapshot: continue, stop or kill can", r.then);
    }
    if (auto why = refusal(job_)) return why;
    if (auto why = guests_are_there()) return why;
    if (job_.snapshots.unconfirmed())
        return "not every node has answered since the last one failed";
    const auto ranks = job_.adapter.ranks();
    if (!job_.adapter.job_running() || ranks.empty()) return why_no_job(job_);
    r.ranks = order_.ranks.empty() ? ranks.size() : order_.ranks.size();
    for (const RankInfo& info : ranks) {
        if (!order_.ranks.empty() && !order_.ranks.contains(info.rank)) continue;
        if (auto why = why_not_running(info)) return why;
    }
    return std::nullopt;
}

// A snapshot is of one job: a rank begun again from it would wait for guests that nobody brings
// back.
std::optional<std::string> SnapshotOperation::guests_are_there() const {
    const size_t guests = job_.adapter.guests();
    if (guests == 0) return std::nullopt;
    return fmt::format(
        "{} processes that the job has spawned (MPI_Comm_spawn) run, and cannot be in a snapshot: "
        "try again when they have ended",
        guests);
}

void SnapshotOperation::begin() {
    SnapshotRun& r = data_;
    r.started = job_.settings.now();
    r.then = order_.then.empty() ? "continue" : order_.then;
    r.asked_by = order_.asked_by;
    const SnapshotPlaces places = places_for(job_.policy, order_.to);
    r.folder = places.folder;
    r.second = places.second;
    r.partner = places.partner;
    r.xor_of = places.xor_of;
    r.compress = job_.policy.compress;
    r.rate = job_.policy.rate;
    r.sign = order_.sign.empty() ? job_.policy.sign : order_.sign;
    if (auto why = check()) {
        r.why = *why;
        return finish(S::refused);
    }
    const bool in_memory = r.folder == job_.policy.memory && order_.to.empty();
    if (in_memory && job_.snapshots.disk_is_due(job_.policy.disk_every))
        r.second = job_.policy.folder;
    take_number();
    r.seq = seq();
    r.job = job_.adapter.describe_job();
    const int full_every = job_.policy.full_every;
    const bool full = full_every > 0 && job_.snapshots.since_full() >= full_every;
    const SnapshotRun* last = job_.snapshots.last();
    r.incremental = job_.policy.incremental && !full && last != nullptr &&
                    last->folder == r.folder && (r.second.empty() || last->second == r.second) &&
                    (r.sign.empty() || !last->sign.empty());  // its parents have to be as well
    open();
}

struct SnapshotOperation::Opened {
    std::string folder, second;
    std::string name;
    std::string why;
    bool last_is_whole = false;  // an incremental one may be based on it
    std::shared_ptr<const SigningKey> key;
};

namespace {

// Of a snapshot whose ghosts are on the nodes' own disks only the manifest can be looked at here.
bool is_whole(const Snapshot& one, bool node_local) {
    return one.whole || (node_local && one.manifest);
}

// A folder of snapshots that is there and ours: its real path.
Result<std::string> take_folder(const std::string& folder, JobLock& lock, const std::string& job,
                                const std::string& life) {
    auto real = open_snapshot_folder(folder);
    GHOST_TRY(real);
    GHOST_TRY(lock.take(*real, job, life));
    return real;
}

Status begin_snapshot(const std::string& folder, const std::string& name, const std::string& life,
                      const std::string& secret) {
    auto made = create_partial(folder, name, life);
    GHOST_TRY(made);
    return write_secret(*made, secret);
}

}  // namespace

void SnapshotOperation::open() {
    if (!change(S::opening)) return;
    const SnapshotRun* const known = job_.snapshots.last();
    auto work = [folder = data_.folder, second = data_.second, job = job_.adapter.job_name(),
                 life = job_.adapter.life(), secret = job_.adapter.secret(), lock = job_.lock,
                 sign = data_.sign, last = known != nullptr ? *known : SnapshotRun()] {
        auto real = take_folder(folder, *lock, job, life);
        if (!real.ok()) return Opened{folder, second, {}, real.error().message(), false, nullptr};
        Opened out{*real, {}, {}, {}, false, nullptr};
        if (!sign.empty()) {
            auto key = SigningKey::load(sign);
            if (!key) return Opened{*real, second, {}, key.error().message(), false, nullptr};
            out.key = *key;
        }
        // Never that of a snapshot there was, though the folder may have been removed meanwhile.
        auto number = next_snapshot_number(*real, job);
        if (!second.empty()) {
            auto other = take_folder(second, *lock, job, life);
            if (!other.ok())
                return Opened{*real, second, {}, other.error().message(), false, nullptr};
            out.second = *other;
            number = std::max(number, next_snapshot_number(*other, job));
        }
        if (const auto known = parse_snapshot_name(last.name))
            number = std::max(number, known->number + 1);
        out.name = snapshot_name(job, number);
        auto begun = begin_snapshot(out.folder, out.name, life, secret);
        if (begun.ok() && !second.empty())
            begun = begin_snapshot(out.second, out.name, life, secret);
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
    run<Opened>(std::move(work), &SnapshotOperation::opened);
}

void SnapshotOperation::opened(Opened opened) {
    SnapshotRun& r = data_;
    // The real path: a link may lead elsewhere tomorrow.
    const SnapshotRun* last = job_.snapshots.last();
    if (last != nullptr &&
        (last->folder != opened.folder ||
         (!opened.second.empty() && last->second != opened.second) || !opened.last_is_whole))
        r.incremental = false;
    key_ = std::move(opened.key);
    r.folder = std::move(opened.folder);
    r.second = std::move(opened.second);
    r.name = std::move(opened.name);
    r.folder_made = !r.name.empty();
    if (r.undone) return discard();
    if (!opened.why.empty()) {
        r.why = std::move(opened.why);
        return discard();
    }
    if (change(S::preparing)) send_prepare();
}

// --- 1: prepare ---

void SnapshotOperation::send_prepare() {
    SnapshotRun& r = data_;
    if (!passes(P::coordinator_snap_prepares)) return;
    const SnapshotRun* last = job_.snapshots.last();
    ++r.attempt;
    job_.adapter.tell_all(SnapPrepare{.seq = r.seq,
                                      .attempt = r.attempt,
                                      .tree = job_.liveness.tree(),
                                      .name = r.name,
                                      .folder = r.folder,
                                      .second = r.second,
                                      .incremental = r.incremental,
                                      .last = last != nullptr ? last->seq : 0,
                                      .compress = r.compress,
                                      .rate = r.rate,
                                      .carried = job_.policy.carried,
                                      .then = then_named(r.then).value_or(Then::go_on),
                                      .ranks = {order_.ranks.begin(), order_.ranks.end()},
                                      .sign = key_ != nullptr});
}

// A rank that is in MPI_Init is waited for; one that is unknown has not begun.
void SnapshotOperation::on_ready(const StepAnswer& answer) {
    SnapshotRun& r = data_;
    r.node_local = answer.own_folders > 0;
    r.second_local = answer.own_seconds > 0;
    if (answer.busy_ranks == 0 && answer.ranks == r.ranks) {
        if (change(S::pinging)) tell_step(DaemonMessage::snap_ping);
        return;
    }
    r.why = plugin::describe(answer.busy, answer.busy_ranks);
    if (r.why.empty()) r.why = "not every rank has started";
    if (r.busy_since == 0) r.busy_since = job_.settings.now();
    r.deferred = true;
    if (job_.settings.now() - r.busy_since >= job_.settings.defer_us) return abort(r.why);
    wait_on();
    retry_after(job_.settings.defer_retry_us, [this] { send_prepare(); });
}

// --- 2, 3: fences and gates ---

void SnapshotOperation::try_hold() {
    if (auto why = refusal(job_)) return abort(*why);
    if (hold_fences([this] { try_hold(); }) && change(S::gating)) send_gate();
}

void SnapshotOperation::send_gate() {
    if (!passes(P::coordinator_snap_gates)) return;
    data_.ungating = false;
    data_.gate_sent = job_.settings.now();
    tell_step(DaemonMessage::snap_gate);
}

// A rank was busy, and all are open again.
void SnapshotOperation::try_again() {
    if (held_long_enough()) return let_fences_go_on(S::holding, [this] { try_hold(); });
    retry_after(job_.settings.gate_retry_us, [this] { send_gate(); });
}

void SnapshotOperation::on_gated(const StepAnswer& answer) {
    SnapshotRun& r = data_;
    if (answer.busy_ranks == 0) {
        // Spawned since the beginning; from here on nobody can.
        if (auto why = guests_are_there()) return abort(*why);
        if (!passes(P::coordinator_snap_closes) || !change(S::freezing)) return;
        r.closed = true;
        tell_step(DaemonMessage::snap_close);
        return;
    }
    r.why = plugin::describe(answer.busy, answer.busy_ranks);
    r.ungating = true;
    // Of the same try: it is the answer to it that is taken back.
    order_step(job_.adapter, job_.liveness, DaemonMessage::snap_ungate, r.seq, r.attempt);
}

// --- 4, 5: the pause ---

void SnapshotOperation::on_resumed(const StepAnswer& answer) {
    data_.pause = job_.settings.now() - data_.gate_sent;
    job_.publish(answer.locations);
    // Trees that stay frozen must find their fences as they were.
    if (data_.then == "continue") job_.fences.release(seq());
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

// Somebody may have removed what it is based on, while it was made.
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

struct SnapshotOperation::Completed {
    std::string why;
    std::vector<std::string> old, old_seconds;  // may be removed
};

namespace {

// Makes it complete in one folder, unless another life has the job by now. What may be removed
// there then.
Result<std::vector<std::string>> complete_in(const std::string& folder, JobLock& lock,
                                             const std::string& life, const Manifest& manifest,
                                             size_t keep, bool node_local) {
    const std::string& name = manifest.name;
    GHOST_TRY(lock.take(folder, manifest.job.name, life));
    GHOST_TRY(write_manifest(folder + "/" + partial_name(name, life), manifest));
    GHOST_TRY(commit_snapshot(folder, name, life));
    auto all = list_snapshots(folder, manifest.job.name);
    GHOST_TRY(all);
    if (auto wrong = wrong_with(*all, name, node_local)) return because(Code::refused, *wrong);
    return old_ones(std::move(*all), manifest.job.name, keep, node_local);
}

void remove_all(const std::string& folder, const std::vector<std::string>& names) {
    for (const std::string& name : names)
        if (auto gone = remove_snapshot(folder, name); !gone.ok())
            log::warning("{}", gone.error().message());
}

// A folder that was renamed and could not be synced is no snapshot either; one by that name of
// another life is.
Status discard_in(const std::string& folder, const std::string& name, JobLock& lock,
                  const std::string& job, const std::string& life) {
    GHOST_TRY(discard_partial(folder, name, life));
    GHOST_TRY(lock.take(folder, job, life));
    return remove_snapshot(folder, name);
}

}  // namespace

void SnapshotOperation::on_written(StepAnswer answer) {
    SnapshotRun& r = data_;
    r.written = std::move(answer);
    if (r.written.written.size() != r.ranks) {
        return abort(
            fmt::format("{} of {} ranks said what they wrote", r.written.written.size(), r.ranks));
    }
    share_out();
    if (!r.parity.empty()) return make_parity();
    if (r.copied.empty()) return complete();
    copy();
}

// --- 6a: copies in the memory of other nodes, or parity ---

// Who has what, and is to have.
void SnapshotOperation::share_out() {
    SnapshotRun& r = data_;
    NodeFiles own;
    if (r.partner) r.copied = partners(job_);
    for (const Written& row : r.written.written) {
        const auto node = job_.adapter.find_node(row.node);
        if (!node) continue;
        r.holders[row.rank].insert(*node);
        own[*node].push_back({r.name + "/" + row.file, row.bytes});
        if (r.outlives_nodes()) r.files[row.rank] = files_of(r.name, row.file, row.chain);
        if (const auto other = r.copied.find(*node); other != r.copied.end())
            r.holders[row.rank].insert(other->second);
    }
    if (r.xor_of > 0) r.parity = parity_sets(job_, r.name, r.seq, r.xor_of, own);
}

void SnapshotOperation::order_copies(MakeCopies order) {
    if (!change(S::copying)) return;
    const auto live = job_.liveness.live_nodes();
    missing_ = {live.begin(), live.end()};
    job_.adapter.tell_all(order);
}

void SnapshotOperation::make_parity() {
    const SnapshotRun& r = data_;
    const std::string now = partial_name(r.name, job_.adapter.life());
    order_copies({r.seq,
                  r.folder,
                  r.name,
                  job_.policy.copy_rate,
                  {},
                  {},
                  parity_streams(r.parity, now, r.seq)});
}

void SnapshotOperation::copy() {
    const SnapshotRun& r = data_;
    MakeCopies order{r.seq, r.folder, r.name, job_.policy.copy_rate, {}, {}};
    const std::string now = partial_name(r.name, job_.adapter.life());
    for (const Written& row : r.written.written) {
        const auto node = job_.adapter.find_node(row.node);
        const auto other = node ? r.copied.find(*node) : r.copied.end();
        if (other != r.copied.end())
            order.copies.push_back(
                {row.rank, *node, other->second, files_of(now, row.file, row.chain)});
    }
    order_copies(std::move(order));
}

std::string SnapshotOperation::why_not_kept(NodeId from, const std::string& why) const {
    const std::string node = job_.liveness.name_of(from);
    if (data_.parity.empty())
        return fmt::format("the ghosts of {} could not be copied to another node: {}", node, why);
    return fmt::format("the parity of the ghosts of {} could not be made: {}", node, why);
}

void SnapshotOperation::copies_made(NodeId from, const CopiesMade& m) {
    if (data_.state != S::copying) return;
    if (!m.why.empty()) return abort(why_not_kept(from, m.why));
    missing_.erase(from);
    if (missing_.empty()) complete();
}

void SnapshotOperation::copies_progressed(NodeId from, const CopiesProgress& m) {
    if (data_.state != S::copying) return;
    wait_on();  // it is said by whoever has got on
    copied_bytes_[from] = {m.bytes, m.total};
    data_.bytes = data_.total = 0;
    for (const auto& [node, of] : copied_bytes_) {
        data_.bytes += of.first;
        data_.total += of.second;
    }
    tell_progress();
}

void SnapshotOperation::complete() {
    SnapshotRun& r = data_;
    if (!passes(P::coordinator_snap_completes) || !change(S::completing)) return;
    r.lasted = job_.settings.now() - r.started;
    Manifest manifest = manifest_of(r, job_.adapter.job_name(), job_.epochs.now());
    if (key_)
        if (auto made = sign_manifest(manifest, *key_, job_.adapter.secret()); !made.ok())
            return abort(made.error().message());
    r.kind = manifest.kind;
    r.time = manifest.time;
    for (const Written& row : r.written.written)
        if (row.stdin_bytes != 0) r.input[row.rank] = row.stdin_bytes;
    r.written.written.clear();
    auto work = [manifest = std::move(manifest), folder = r.folder, second = r.second,
                 lock = job_.lock, life = job_.adapter.life(), keep = job_.policy.keep,
                 node_local = r.node_local, second_local = r.second_local] {
        Completed out;
        auto done = complete_in(folder, *lock, life, manifest, keep, node_local);
        if (!done.ok()) return Completed{done.error().message(), {}, {}};
        out.old = std::move(*done);
        if (second.empty()) return out;
        done = complete_in(second, *lock, life, manifest, keep, second_local);
        if (!done.ok()) return Completed{done.error().message(), {}, {}};
        out.old_seconds = std::move(*done);
        return out;
    };
    run<Completed>(std::move(work), &SnapshotOperation::completed);
}

void SnapshotOperation::completed(Completed completed) {
    SnapshotRun& r = data_;
    if (!completed.why.empty()) return abort(completed.why);
    r.old = completed.old;
    r.old_seconds = completed.old_seconds;
    (void)fault::pass(P::coordinator_snap_ends);
    job_.adapter.tell_all(SnapEnd{r.seq, completed.old, completed.old_seconds});
    job_.background.run([folder = r.folder, second = r.second, done = std::move(completed)] {
        remove_all(folder, done.old);
        remove_all(second, done.old_seconds);
    });
    finish(S::done);
}

// --- messages ---

void SnapshotOperation::message(NodeId from, const schema::Received& m) {
    if (m.is<StepProgress>()) return progressed(m.as<StepProgress>());
    if (m.is<CopiesMade>()) return copies_made(from, m.as<CopiesMade>());
    if (m.is<CopiesProgress>()) return copies_progressed(from, m.as<CopiesProgress>());
    if (!m.is<StepUp>()) return;
    const StepUp& up = m.as<StepUp>();
    const bool settled = data_.state == S::freezing || data_.state == S::writing;
    if (!settled && up.attempt != data_.attempt) return;
    step_answered(up.step, up.answer);
}

void SnapshotOperation::progressed(const StepProgress& m) {
    SnapshotRun& r = data_;
    // `freezing`: a rank too large to be copied is written while it is frozen.
    if (r.state != S::preparing && r.state != S::freezing && r.state != S::writing) return;
    wait_on();  // it is said by whoever has got on
    r.bytes = m.bytes;
    r.total = m.total;
    tell_progress();
}

void SnapshotOperation::step_answered(ParticipantStep step, StepAnswer answer) {
    using P = ParticipantStep;
    SnapshotRun& r = data_;
    const bool ungated = step == P::ungated && r.state == S::gating && r.ungating;
    const bool gated = step == P::gated && r.state == S::gating && !r.ungating;
    const bool fits = (step == P::ready && r.state == S::preparing) ||
                      (step == P::here && r.state == S::pinging) || gated || ungated ||
                      (step == P::resumed && r.state == S::freezing) ||
                      (step == P::written && r.state == S::writing);
    if (step == P::aborted && r.state == S::aborting) return on_aborted(answer);
    if (!fits) return;
    if (answer.failed_ranks > 0) return refuse_for(answer);
    if (step == P::ready) return on_ready(answer);
    if (step == P::here) {
        if (change(S::holding)) try_hold();
        return;
    }
    if (gated) return on_gated(answer);
    if (ungated) return try_again();
    if (step == P::resumed) return on_resumed(answer);
    on_written(std::move(answer));
}

void SnapshotOperation::on_aborted(const StepAnswer& answer) {
    job_.publish(answer.locations);
    if (answer.failed_ranks > 0) {
        data_.harmed = true;
        data_.why += "; and not every rank came back: " +
                     plugin::describe(answer.failed, answer.failed_ranks);
    }
    discard();
}

void SnapshotOperation::refuse_for(const StepAnswer& answer) {
    data_.deferred = false;
    data_.still = std::ranges::any_of(
        answer.failed, [](const RankTrouble& one) { return one.stage == Stage::standstill; });
    if (data_.state == S::freezing) job_.publish(answer.locations);
    abort(plugin::describe(answer.failed, answer.failed_ranks));
}

// --- limits, deaths, the end ---

std::string SnapshotOperation::limit_text() const {
    const SnapshotRun& r = data_;
    const auto seconds = static_cast<double>(limit_us()) / 1e6;
    switch (r.state) {
        case S::pinging:
            return fmt::format("not every node answered for {} s", seconds);
        case S::holding:
            return fmt::format("the job's fences were never quiet for {} s", seconds);
        case S::gating:
            return fmt::format("the ranks could not be stopped together within {} s{}{}", seconds,
                               r.why.empty() ? "" : ": ", r.why);
        case S::freezing:
            return fmt::format("not every rank was back within {} s", seconds);
        default:
            return fmt::format("nothing was heard for {} s while {}", seconds,
                               snapshot_states.name(r.state));
    }
}

void SnapshotOperation::expired() {
    SnapshotRun& r = data_;
    if (r.state != S::aborting) {
        // Ranks that were never outside of their calls: another time may be better.
        r.deferred = r.state == S::gating || r.state == S::holding;
        return abort(limit_text());
    }
    if (r.attempt < most_abort_tries && !r.still) {
        tell_step(DaemonMessage::snap_abort);
        return wait_on();
    }
    r.harmed = r.closed && !r.still;
    if (!r.still)
        r.why += fmt::format("; and not every node confirmed that its ranks go on{}",
                             r.harmed ? "" : " (they do by themselves, within 5 minutes)");
    job_.snapshots.remind(r.seq, r.attempt);
    discard();
}

void SnapshotOperation::impossible(S) {
    if (snapshot_states.allows(data_.state, S::aborting))
        abort("a fault of Ghost's own (see mpirun's log)");
}

bool SnapshotOperation::passes(P point) {
    return fault::passes(point, [this](const std::string& why) { abort(why); });
}

void SnapshotOperation::abort(const std::string& why) {
    data_.why = why;
    if (!change(S::aborting)) return;
    if (data_.still) set_limit(job_.settings.still_us);
    tell_step(DaemonMessage::snap_abort);
}

// While something runs beside the loop it answers first.
bool SnapshotOperation::undo(const std::string& why) {
    if (data_.state == S::opening) {
        data_.undone = true;
        data_.why = why;
    } else if (data_.state != S::completing && snapshot_states.allows(data_.state, S::aborting)) {
        abort(why);
    } else {
        return data_.state == S::aborting || data_.state == S::discarding;
    }
    return true;
}

void SnapshotOperation::discard() {
    job_.fences.release(seq());
    if (!change(S::discarding)) return;
    if (!data_.folder_made) return discarded({});
    auto work = [folder = data_.folder, second = data_.second, name = data_.name,
                 job = job_.adapter.job_name(), life = job_.adapter.life(), lock = job_.lock] {
        auto gone = discard_in(folder, name, *lock, job, life);
        if (!second.empty())
            if (auto also = discard_in(second, name, *lock, job, life); gone.ok()) gone = also;
        return gone.ok() ? std::string() : gone.error().message();
    };
    run<std::string>(std::move(work), &SnapshotOperation::discarded);
}

void SnapshotOperation::discarded(std::string why) {
    if (!why.empty()) log::warning("{}", why);
    finish(data_.deferred && !data_.harmed ? S::deferred : S::failed);
}

void SnapshotOperation::node_lost(NodeId node) {
    switch (data_.state) {
        case S::checking:
        case S::opening:
        case S::completing:
        case S::discarding:
            return;
        case S::aborting:  // by another tree
            return tell_step(DaemonMessage::snap_abort);
        default:
            data_.deferred = false;
            abort(fmt::format("node {} is lost", job_.liveness.name_of(node)));
    }
}

void SnapshotOperation::finish(S state) {
    SnapshotRun& r = data_;
    if (state != S::done || r.then != "stop") job_.fences.release(seq());
    if (state == S::deferred) r.why = "put off: " + r.why;
    if (state != S::done) {
        const bool none = r.harmed || !job_.adapter.job_running();
        r.why = fmt::format("no snapshot was made: {}{}", r.why,
                            none      ? ""
                            : r.still ? "; the job is unharmed"
                                      : "; the job is unharmed and goes on");
    }
    conclude(state);
    if (r.state == S::done) {
        job_.snapshots.add(r, job_.policy.memory);
        if (job_.policy.restart.empty())
            job_.adapter.forget_input_before(job_.snapshots.input_needed_from(r.job.input.rank));
    }
    hand_over();
    if (r.state == S::done && r.then == "kill") {
        job_.adapter.end_job(
            job_.settings.kill_status,
            fmt::format("ghost: the job ended after its snapshot {}/{}", r.folder, r.name));
    }
}

void SnapshotOperation::stop(const std::string& why) {
    if (snapshot_states[data_.state].urgent) job_.adapter.raise_priority(false);
    data_.state = S::failed;
    data_.why = fmt::format("no snapshot was made: {}", why);
    hand_over();
}

std::string level_of(const SnapshotRun& run) {
    const auto is_memory = [](const std::string& folder) {
        return folder.starts_with(memory_snapshots() + ".");
    };
    const bool memory = is_memory(run.folder) || is_memory(run.second);
    const bool disk = !is_memory(run.folder) || !(run.second.empty() || is_memory(run.second));
    if (!memory) return "disk";
    return std::string(!run.parity.empty()  ? "xor"
                       : run.copied.empty() ? "memory"
                                            : "partner") +
           (disk ? " and disk" : "");
}

Json result_of(const SnapshotRun& run) {
    const bool there = run.state == S::done;
    return {{"snapshot", there ? run.folder + "/" + run.name : ""},
            {"second", there && !run.second.empty() ? run.second + "/" + run.name : ""},
            {"name", run.name},
            {"level", there ? level_of(run) : ""},
            {"kind", run.kind},
            {"ranks", run.ranks},
            {"bytes", run.written.bytes},
            {"pause_us", run.pause},
            {"total_us", run.lasted}};
}

Request snapshot_request(Job& job, uint64_t owner, SnapshotOrder order,
                         SnapshotOperation::Progress progress,
                         SnapshotOperation::Finished finished) {
    Request request;
    request.owner = owner;
    request.what = "snapshot";
    request.scope = {order.ranks.empty(), order.ranks, true};
    // Once begun it answers for itself.
    auto begun = std::make_shared<bool>(false);
    request.refuse = [finished, begun](const std::string& why) {
        SnapshotRun run;
        run.state = S::refused;
        run.why = "no snapshot was made: " + why;
        if (finished && !*begun) finished(run);
    };
    request.next = [&job, order = std::move(order), progress = std::move(progress),
                    finished = std::move(finished), begun]() -> Operations {
        if (std::exchange(*begun, true)) return {};
        return one_operation(std::make_unique<SnapshotOperation>(job, order, progress, finished));
    };
    return request;
}

}  // namespace ghost::plugin
