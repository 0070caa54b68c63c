// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/restart.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <sodium.h>
#include <unistd.h>
#include <utility>

#include "base/encoding.hpp"
#include "base/fault.hpp"
#include "base/file.hpp"
#include "pmix-plugin/coordinator/operations/parity.hpp"
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"
#include "pmix-plugin/coordinator/operations/targets.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {
namespace {

using S = RestartState;

constexpr int64_t poll_us = 10'000;
constexpr int64_t gather_us = 20'000;     // what is lost together is heard of together
constexpr int64_t settle_us = 1'000'000;  // after copies have failed: a node may be lost
constexpr int most_attempts = 5;
constexpr int most_tries = 2;  // of one snapshot that cannot be used
constexpr size_t life_bytes = 8;

std::string drawn_life() {
    std::array<char, life_bytes> bytes{};
    randombytes_buf(bytes.data(), bytes.size());
    return encode_hex({bytes.data(), bytes.size()});
}

}  // namespace

RestartOperation::RestartOperation(Job& job, const std::string& folder, Finished finished)
    : StagedOperation(job, nullptr, std::move(finished)) {
    data_.folder = folder;
}

RestartOperation::RestartOperation(Job& job, const RecoveryOrder& order, Finished finished)
    : StagedOperation(job, nullptr, std::move(finished)) {
    from_ = order.from;
    data_.lost = order.lost;
    data_.status = order.status;
    computed_from_ = order.computed_from;
}

struct RestartOperation::Known {
    std::string name, taken, job, why;
    uint64_t epoch = 0, ranks = 0;
    uint32_t uid = 0;
    std::shared_ptr<const Manifest> manifest = {};
    std::string text = {};  // of it
};

void RestartOperation::begin() {
    data_.started = job_.settings.now();
    if (!data_.recovers()) return read();
    take_number();
    retry_after(gather_us, [this] { choose(); });
}

// What lives of the nodes that have it is looked at anew each time.
void RestartOperation::choose() {
    auto from = from_();
    if (!from) return fail(from.error().message());
    data_.folder = from->path;
    kept_ = from->kept;
    note_redone();
    read();
}

void RestartOperation::note_redone() {
    data_.redone.reset();
    if (kept_ != nullptr)
        data_.redone = data_.started - std::max(kept_->run->started, computed_from_);
    else if (computed_from_ > 0)
        data_.redone = data_.started - computed_from_;
}

void RestartOperation::read() {
    auto read = [own = kept_ != nullptr && kept_->own, folder = data_.folder,
                 signer = job_.policy.signer, lock = job_.lock, life = job_.adapter.life()] {
        std::optional<PublicKey> key;
        if (!signer.empty()) {
            auto known = PublicKey::from_hex(signer);
            if (!known.ok()) return Known{{}, {}, {}, known.error().message()};
            key = *known;
        }
        auto manifest = read_manifest(folder, key);
        if (!manifest.ok()) return Known{{}, {}, {}, manifest.error().message()};
        // A folder of snapshots that cannot be written to keeps nobody from restarting.
        auto above = open_snapshot_folder(folder + "/..");
        const Status ours =
            above.ok() ? lock->take(*above, manifest->job.name, life) : above.error();
        if (!ours.ok() && (ours.error().code == Code::busy || ours.error().code == Code::refused)) {
            return Known{{}, {}, {}, ours.error().message()};
        }
        Known out{manifest->name,      manifest->time,         manifest->job.name, {},
                  manifest->job.epoch, manifest->ranks.size(), manifest->job.uid};
        if (!own) return out;
        auto text = read_file(folder + "/" + manifest_file);
        if (!text.ok()) return Known{{}, {}, {}, text.error().message()};
        out.text = std::move(*text);
        out.manifest = std::make_shared<const Manifest>(std::move(*manifest));
        return out;
    };
    std::weak_ptr<bool> alive = alive_;
    job_.background.run<Known>(read, [this, alive, attempt = data_.attempts](const Known& k) {
        if (!alive.expired() && data_.attempts == attempt) known(k);
    });
}

void RestartOperation::known(const Known& k) {
    data_.name = k.name;
    data_.taken = k.taken;
    // Of a placement that is over nobody may be taken for one that is.
    data_.epoch = std::max({static_cast<uint32_t>(k.epoch), job_.epochs.now(), data_.epoch}) + 1;
    data_.ranks = k.ranks;
    if (!k.why.empty() && gives_up_snapshot(true)) return choose();
    if (!k.why.empty()) return fail(k.why);
    manifest_ = k.manifest;
    manifest_text_ = k.text;
    if (k.uid != ::geteuid()) {
        return fail(fmt::format("it is of user {}, this is user {}", k.uid, ::geteuid()));
    }
    if (data_.recovers()) return stop_ranks();
    if (change(S::launching)) wait_for_launch();
}

// --- a recovery ---

void RestartOperation::stop_ranks() {
    auto places = places_after_loss(job_);
    if (!places) return fail(places.error().message());
    places_ = std::move(*places);
    copies_.clear();
    if (manifest_) {
        CopyPlan plan = plan_copies(job_, *manifest_, kept_->holders, places_);
        if (!rebuild_all(plan.lacking)) return retry_after(gather_us, [this] { choose(); });
        copies_ = std::move(plan.copies);
    }
    if (change(S::stopping)) job_.adapter.tell_all(RecoverStop{seq(), job_.liveness.tree()});
}

// False: not all of them can be.
bool RestartOperation::rebuild_all(const std::vector<RankId>& ranks) {
    streams_.clear();
    rebuilt_.clear();
    for (const auto& [rank, node] : places_) {
        if (std::ranges::find(ranks, rank) == ranks.end()) continue;
        const auto streams = rebuild(job_, *kept_, rank, node, seq());
        if (!streams) return false;
        streams_.insert(streams_.end(), streams->begin(), streams->end());
        rebuilt_.emplace_back(rank, node);
    }
    return rebuilt_.size() == ranks.size();
}

void RestartOperation::wait_for_all() {
    const auto live = job_.liveness.live_nodes();
    missing_ = {live.begin(), live.end()};
}

// Each node needs the manifest, and the ghosts of the ranks that are to be there.
void RestartOperation::gather() {
    if (!manifest_) return start_ranks();
    if (!change(S::gathering)) return;
    wait_for_all();
    job_.adapter.tell_all(
        MakeCopies{seq(), kept_->folder, data_.name, 0, copies_, manifest_text_, streams_});
}

void RestartOperation::copies_made(NodeId from, const CopiesMade& m) {
    if (data_.state != S::gathering) return;
    if (!m.why.empty())
        return fail(fmt::format("the ghosts that {} has could not be sent: {}",
                                job_.liveness.name_of(from), m.why));
    missing_.erase(from);
    if (!missing_.empty()) return;
    for (const GhostCopy& copy : copies_) kept_->holders[copy.rank].insert(copy.to);
    for (const auto& [rank, node] : rebuilt_) kept_->holders[rank].insert(node);
    start_ranks();
}

// Of one that nodes have in their memory, where another one may do. False: there is no other.
bool RestartOperation::gives_up_snapshot(bool at_once) {
    if (!data_.recovers() || kept_ == nullptr || !kept_->own) return false;
    if (++tried_[data_.folder] < most_tries && !at_once) return false;
    kept_->useless = true;
    if (from_().ok()) return true;
    kept_->useless = false;  // nothing is better
    return false;
}

void RestartOperation::start_ranks() {
    if (!change(S::starting)) return;
    RecoverStart order{.seq = seq(),
                       .life = drawn_life(),
                       .snapshot = data_.folder,
                       .places = {},
                       .input_of = input_given_again(),
                       .input_ended = job_.adapter.input_ended(),
                       .shown = job_.adapter.shown_output(),
                       .anew = kept_ == nullptr};
    for (const auto& [rank, node] : places_) order.places.push_back({rank, node});
    job_.adapter.tell_all(order);
}

// Whoever decided on this snapshot has seen that it can be.
std::optional<RankId> RestartOperation::input_given_again() {
    const RankId rank = job_.adapter.describe_job().input.rank;
    const int64_t had = input_by(kept_ != nullptr ? kept_->run.get() : nullptr, rank);
    if (had < 0 || !job_.adapter.has_input_since(rank, static_cast<uint64_t>(had))) return {};
    job_.adapter.give_input_again(rank, static_cast<uint64_t>(had));
    return rank;
}

bool RestartOperation::lost(const std::string& why) {
    if (!data_.recovers() || restart_states.is_final(data_.state)) return false;
    log::info("{}: {}", describe(), why);
    if (data_.lost.find(why) == std::string::npos) data_.lost += "; " + why;
    if (data_.state != S::reading && !begin_anew()) fail("it was lost again and again");
    return true;
}

bool RestartOperation::begin_anew() {
    if (data_.attempts + 1 >= most_attempts) return false;
    ++data_.attempts;
    const int64_t wait_us = data_.state == S::gathering ? settle_us : gather_us;
    take_number();
    if (change(S::reading)) retry_after(wait_us, [this] { choose(); });
    return true;
}

// --- a restart ---

// The ranks are known as soon as they are mapped, which is when all daemons are there.
void RestartOperation::wait_for_launch() {
    const auto ranks = job_.adapter.ranks();
    if (ranks.empty() || job_.adapter.job_name().empty())
        return retry_after(poll_us, [this] { wait_for_launch(); });
    if (ranks.size() != data_.ranks) {
        return fail(fmt::format("it has {} ranks, {} were started", data_.ranks, ranks.size()));
    }
    check();
}

void RestartOperation::check() {
    if (!change(S::checking) || !passes(fault::Point::coordinator_restart_checks)) return;
    job_.adapter.tell_all(RestartPrepare{seq(), job_.liveness.tree(), data_.epoch});
}

void RestartOperation::tell_step(DaemonMessage step) {
    job_.adapter.broadcast(schema::encode_as(between_daemons, step, StepOrder{seq(), 0, {}}));
}

void RestartOperation::message(NodeId from, const schema::Received& m) {
    if (m.is<CopiesMade>()) return copies_made(from, m.as<CopiesMade>());
    if (m.is<CopiesProgress>() && data_.state == S::gathering) {
        wait_on();
        data_.bytes = m.as<CopiesProgress>().bytes;
        data_.total = m.as<CopiesProgress>().total;
    }
    if (m.is<StepUp>()) return step_answered(m.as<StepUp>().step, m.as<StepUp>().answer);
    if (!m.is<StepProgress>()) return;
    const auto& progress = m.as<StepProgress>();
    wait_on();  // it is said by whoever has got on
    data_.bytes = progress.bytes;
    data_.total = progress.total;
}

void RestartOperation::step_answered(ParticipantStep step, const StepAnswer& answer) {
    using P = ParticipantStep;
    const std::map<P, S> awaited = {{P::halted, S::stopping},
                                    {P::started, S::starting},
                                    {P::checked, S::checking},
                                    {P::held, S::holding},
                                    {P::restarted, S::going}};
    const auto found = awaited.find(step);
    if (found == awaited.end() || found->second != data_.state) return;
    job_.publish(answer.locations);
    if (answer.failed_ranks > 0) return fail(plugin::describe(answer.failed, answer.failed_ranks));
    if (step == P::halted) return gather();
    if (step == P::started) return check();
    if (answer.ranks != data_.ranks) {
        return fail(fmt::format("{} of {} ranks were heard of", answer.ranks, data_.ranks));
    }
    if (step == P::restarted) return back();
    if (step == P::held && !passes(fault::Point::coordinator_restart_goes)) return;
    if (change(step == P::checked ? S::holding : S::going))
        tell_step(step == P::checked ? DaemonMessage::restart_import : DaemonMessage::restart_go);
}

void RestartOperation::back() {
    if (data_.recovers()) {
        job_.adapter.input_goes_on();
        job_.snapshots.went_back_to(data_.folder);
    }
    conclude(S::done);
    hand_over();
}

bool RestartOperation::passes(fault::Point point) {
    return fault::passes(point, [this](const std::string& why) { fail(why); });
}

// What has failed there may do better anew; what nobody can do does not.
void RestartOperation::fail(const std::string& why) {
    const bool stopped = data_.state != S::reading && data_.state != S::launching;
    if (stopped) (void)gives_up_snapshot(data_.state == S::checking);
    if (data_.recovers() && stopped && begin_anew()) return log::warning("{}: {}", describe(), why);
    if (data_.recovers()) {
        if (change(S::failed))
            job_.adapter.abort_job(data_.status, fmt::format("ghost: {}, and the job could not go "
                                                             "on from its snapshot: {}; {}",
                                                             data_.lost, why, way_on(job_)));
        return;
    }
    const char* const so_far = data_.state == S::going     ? ""
                               : data_.state == S::holding ? " (no rank has run)"
                                                           : " (nothing has been changed, no rank "
                                                             "has run)";
    if (!change(S::failed)) return;
    job_.adapter.abort_job(1, fmt::format("ghost: the job could not be restarted from {}{}: {}",
                                          data_.folder, so_far, why));
}

void RestartOperation::impossible(S) {
    if (restart_states.allows(data_.state, S::failed))
        fail("a fault of Ghost's own (see mpirun's log)");
}

void RestartOperation::expired() {
    fail(fmt::format("nothing was heard for {} s while {}", limit_us() / 1'000'000,
                     restart_states.name(data_.state)));
}

void RestartOperation::node_lost(NodeId node) {
    if (lost(fmt::format("node {} was lost", job_.liveness.name_of(node)))) return;
    if (data_.state == S::reading || data_.state == S::failed) return;
    fail(fmt::format("node {} is lost", job_.liveness.name_of(node)));
}

void RestartOperation::show(Json& ps) const {
    ps["restarting"] = {{"snapshot", data_.folder},
                        {"recovery", data_.recovers()},
                        {"phase", restart_states.name(data_.state)},
                        {"bytes", data_.bytes},
                        {"total", data_.total}};
}

namespace {

template <typename From>
Request request_from(Job& job, const From& from, RestartOperation::Finished finished) {
    Request request;
    request.scope = {true, {}, true};
    request.next = [&job, from, finished = std::move(finished),
                    begun = false]() mutable -> Operations {
        if (std::exchange(begun, true)) return {};
        return one_operation(std::make_unique<RestartOperation>(job, from, std::move(finished)));
    };
    return request;
}

}  // namespace

Request restart_request(Job& job, const std::string& folder, RestartOperation::Finished finished) {
    return request_from(job, folder, std::move(finished));
}

Request recovery_request(Job& job, const RecoveryOrder& order,
                         RestartOperation::Finished finished) {
    return request_from(job, order, std::move(finished));
}

}  // namespace ghost::plugin
