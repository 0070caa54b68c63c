// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/restarter.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

#include "base/log.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {
namespace {

using S = RestartState;
using C = CoordinatorSettings;

struct Row {
    S state;
    const char* name;
    int64_t C::*limit;
    std::array<S, 2> next;
};

constexpr std::array<Row, 7> table{{
    {S::reading, "reading", nullptr, {S::launching, S::failed}},
    {S::launching, "launching", nullptr, {S::checking, S::failed}},
    {S::checking, "checking", &C::restart_us, {S::holding, S::failed}},
    {S::holding, "holding", &C::restart_us, {S::going, S::failed}},
    {S::going, "going", &C::stand_us, {S::done, S::failed}},
    {S::done, "done", nullptr, {S::done, S::done}},
    {S::failed, "failed", nullptr, {S::failed, S::failed}},
}};

const Row& row(S state) {
    return table[static_cast<size_t>(state)];
}

constexpr int64_t poll_us = 10'000;

}  // namespace

const char* name(RestartState state) {
    return row(state).name;
}

bool may_follow(RestartState from, RestartState to) {
    return from != to && std::ranges::find(row(from).next, to) != row(from).next.end();
}

int64_t limit_of(RestartState state, const CoordinatorSettings& settings) {
    auto limit = row(state).limit;
    return limit == nullptr ? 0 : settings.*limit;
}

void Restarter::change(S next) {
    if (!may_follow(restart_->state, next)) {
        log::error("bug: the restart cannot go from {} to {}", name(restart_->state), name(next));
    }
    log::info("restart from {}: {} -> {}", restart_->folder, name(restart_->state), name(next));
    restart_->state = next;
    arm_limit();
}

void Restarter::arm_limit() {
    if (limit_) c_.adapter.cancel(*limit_);
    limit_.reset();
    const int64_t us = limit_of(restart_->state, c_.settings);
    if (us == 0) return;
    limit_ = c_.adapter.after(us, [this, us] {
        limit_.reset();
        fail(fmt::format("nothing was heard for {} s while {}", us / 1'000'000,
                         name(restart_->state)));
    });
}

struct Restarter::Known {
    std::string name, taken, job, why;
    uint64_t epoch = 0, ranks = 0;
    uint32_t uid = 0;
};

void Restarter::begin(const std::string& folder, Finished finished) {
    restart_.emplace();
    restart_->folder = folder;
    restart_->started = c_.settings.now();
    finished_ = std::move(finished);
    auto read = [folder, lock = c_.lock] {
        auto manifest = read_manifest(folder);
        if (!manifest.ok()) return Known{{}, {}, {}, manifest.error().message()};
        // A folder of snapshots that cannot be written to keeps nobody from restarting.
        auto above = open_snapshot_folder(folder + "/..");
        const Status ours = above.ok() ? lock->take(*above, manifest->job) : above.error();
        if (!ours.ok() && (ours.error().code == Code::busy || ours.error().code == Code::refused)) {
            return Known{{}, {}, {}, ours.error().message()};
        }
        return Known{manifest->name,  manifest->time,         manifest->job, {},
                     manifest->epoch, manifest->ranks.size(), manifest->uid};
    };
    c_.background.run<Known>(read, [this](const Known& k) {
        if (restart_) known(k);
    });
}

void Restarter::known(const Known& k) {
    restart_->name = k.name;
    restart_->taken = k.taken;
    restart_->epoch = static_cast<uint32_t>(k.epoch + 1);
    restart_->ranks = k.ranks;
    if (!k.why.empty()) return fail(k.why);
    if (k.uid != ::geteuid()) {
        return fail(fmt::format("it is of user {}, this is user {}", k.uid, ::geteuid()));
    }
    change(S::launching);
    wait_for_launch();
}

// The ranks are known as soon as they are mapped, which is when all daemons are there.
void Restarter::wait_for_launch() {
    const auto ranks = c_.adapter.ranks();
    if (ranks.empty() || c_.adapter.job_name().empty()) {
        poll_ = c_.adapter.after(poll_us, [this] {
            poll_.reset();
            wait_for_launch();
        });
        return;
    }
    if (ranks.size() != restart_->ranks) {
        return fail(fmt::format("it has {} ranks, {} were started", restart_->ranks, ranks.size()));
    }
    change(S::checking);
    c_.adapter.tell_all(RestartPrepare{0, c_.liveness.tree(), restart_->epoch});
}

void Restarter::message(const schema::Received& m) {
    if (!restart_ || m.seq() != 0) return;
    if (m.is<StepProgress>()) {
        const auto& progress = m.as<StepProgress>();
        if (progress.bytes > restart_->bytes) arm_limit();
        restart_->bytes = progress.bytes;
        restart_->total = progress.total;
        return;
    }
    using P = ParticipantStep;
    const P step = m.as<StepUp>().step;
    const bool checked = step == P::checked && restart_->state == S::checking;
    const bool held = step == P::held && restart_->state == S::holding;
    const bool restarted = step == P::restarted && restart_->state == S::going;
    if (!checked && !held && !restarted) return;
    const StepAnswer& answer = m.as<StepUp>().answer;
    for (const kernet::Location& location : answer.locations) c_.publish(location);
    if (answer.failed_ranks > 0) return fail(describe(answer.failed, answer.failed_ranks));
    if (answer.ranks != restart_->ranks) {
        return fail(fmt::format("{} of {} ranks were heard of", answer.ranks, restart_->ranks));
    }
    if (checked) {
        change(S::holding);
        return c_.adapter.broadcast(
            schema::encode_as(between_daemons, DaemonMessage::restart_import, StepOrder{}));
    }
    if (held) {
        change(S::going);
        return c_.adapter.broadcast(
            schema::encode_as(between_daemons, DaemonMessage::restart_go, StepOrder{}));
    }
    change(S::done);
    Restart result = std::move(*restart_);
    restart_.reset();
    if (finished_) std::exchange(finished_, nullptr)(result);
}

void Restarter::fail(const std::string& why) {
    const char* const so_far = restart_->state == S::going ? ""
                               : restart_->state == S::holding
                                   ? " (no rank has run)"
                                   : " (nothing has been changed, no rank has run)";
    change(S::failed);
    const std::string told = fmt::format("ghost: the job could not be restarted from {}{}: {}",
                                         restart_->folder, so_far, why);
    restart_.reset();
    finished_ = nullptr;
    c_.adapter.abort_job(1, told);
}

void Restarter::node_lost(NodeId node) {
    if (!restart_ || restart_->state == S::reading) return;
    fail(fmt::format("node {} is lost", c_.liveness.name_of(node)));
}

void Restarter::stop() {
    if (limit_) c_.adapter.cancel(*limit_);
    if (poll_) c_.adapter.cancel(*poll_);
    limit_.reset();
    poll_.reset();
    restart_.reset();
    finished_ = nullptr;
}

}  // namespace ghost::plugin
