// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/snapshot.hpp"

#include <array>

#include "base/transitions.hpp"

namespace ghost::plugin {
namespace {

using S = SnapshotState;
using C = CoordinatorSettings;

struct Row {
    S state;
    const char* name;
    int64_t C::*limit;
    uint32_t next;
};

constexpr std::array<Row, 15> table{{
    {S::checking, "checking", nullptr, to({S::opening, S::refused, S::deferred})},
    {S::opening, "opening", nullptr, to({S::preparing, S::discarding})},
    {S::preparing, "preparing", &C::transfer_us, to({S::pinging, S::aborting})},
    {S::pinging, "pinging", &C::hold_us, to({S::holding, S::aborting})},
    {S::holding, "holding", &C::hold_us, to({S::gating, S::aborting})},
    {S::gating, "gating", &C::gate_us, to({S::standing, S::aborting})},
    {S::standing, "standing", &C::stand_us, to({S::writing, S::aborting})},
    {S::writing, "writing", &C::transfer_us, to({S::completing, S::aborting})},
    {S::completing, "completing", nullptr, to({S::done, S::aborting})},
    {S::done, "done", nullptr, 0},
    {S::aborting, "aborting", &C::abort_us, to({S::discarding})},
    {S::discarding, "discarding", nullptr, to({S::failed, S::deferred})},
    {S::refused, "refused", nullptr, 0},
    {S::deferred, "deferred", nullptr, 0},
    {S::failed, "failed", nullptr, 0},
}};

const Row& row(S state) {
    return table[static_cast<size_t>(state)];
}

}  // namespace

const char* name(SnapshotState state) {
    return row(state).name;
}

bool may_follow(SnapshotState from, SnapshotState to) {
    return has(row(from).next, to);
}

int64_t limit_of(SnapshotState state, const CoordinatorSettings& settings) {
    auto limit = row(state).limit;
    if (limit == nullptr) return 0;
    return settings.*limit + (state == S::pinging ? settings.until_given_up_us() : 0);
}

bool is_final(SnapshotState state) {
    return row(state).next == 0;
}

bool is_urgent(SnapshotState state) {
    return state == S::gating || state == S::standing || state == S::aborting;
}

Json result_of(const SnapshotRun& run) {
    const bool there = run.state == S::done;
    return {{"snapshot", there ? run.folder + "/" + run.name : ""},
            {"second", there && !run.second.empty() ? run.second + "/" + run.name : ""},
            {"name", run.name},
            {"kind", run.kind},
            {"ranks", run.ranks},
            {"bytes", run.written.bytes},
            {"pause_us", run.pause},
            {"total_us", run.lasted}};
}

}  // namespace ghost::plugin
