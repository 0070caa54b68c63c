// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/node/rank_slot.hpp"

#include <array>

#include "base/transitions.hpp"

namespace ghost::plugin {
namespace {

using S = RankSlotState;

struct Row {
    S state;
    const char* name;
    uint32_t next;
};

// `leaving` is what the coordinator decided: it follows from wherever the source may be by then.
// Home again from any state of a snapshot: the rank has ended.
constexpr std::array<Row, 22> table{{
    {S::home, "home", to({S::connecting, S::preparing, S::leaving, S::shutting})},
    {S::connecting, "connecting", to({S::connected, S::home, S::leaving})},
    {S::connected, "connected", to({S::gating, S::home, S::leaving})},
    {S::gating, "gating", to({S::connected, S::ungating, S::closing, S::leaving})},
    {S::ungating, "ungating", to({S::home, S::leaving})},
    {S::closing, "closing", to({S::exporting, S::resuming, S::leaving})},
    {S::exporting, "exporting", to({S::exported, S::resuming, S::leaving})},
    {S::exported, "exported", to({S::resuming, S::leaving})},
    {S::resuming, "resuming", to({S::home, S::leaving})},
    {S::leaving, "leaving", to({S::draining})},
    {S::draining, "draining", to({S::draining})},
    {S::preparing, "preparing", to({S::ready})},
    {S::ready, "ready", to({S::held})},
    {S::held, "held", to({S::switched, S::going})},
    {S::switched, "switched", to({S::going})},
    {S::going, "going", to({S::home})},
    {S::shutting, "shutting", to({S::shut, S::opening, S::home})},
    {S::shut, "shut", to({S::parting, S::opening, S::home})},
    {S::opening, "opening", to({S::home})},
    {S::parting, "parting", to({S::standing, S::resuming, S::home})},
    {S::standing, "standing", to({S::resuming, S::frozen, S::home})},
    {S::frozen, "frozen", to({S::resuming, S::home})},
}};

using W = SnapWork;

struct WorkRow {
    W work;
    const char* name;
    uint32_t next;
};

constexpr std::array<WorkRow, 8> works{{
    {W::idle, "idle", to({W::preparing})},
    {W::preparing, "preparing", to({W::ready, W::failed, W::cancelling, W::idle})},
    {W::ready, "ready", to({W::standing, W::failed, W::cancelling, W::idle})},
    {W::standing, "standing", to({W::writing, W::failed, W::cancelling, W::idle})},
    {W::writing, "writing", to({W::written, W::failed, W::cancelling, W::idle})},
    {W::written, "written", to({W::idle, W::failed, W::cancelling})},
    {W::failed, "failed", to({W::cancelling, W::idle})},
    {W::cancelling, "cancelling", to({W::idle, W::preparing})},
}};

const WorkRow& row(W work) {
    return works[static_cast<size_t>(work)];
}

const Row& row(S state) {
    return table[static_cast<size_t>(state)];
}

}  // namespace

const char* name(RankSlotState state) {
    return row(state).name;
}

bool may_follow(RankSlotState from, RankSlotState to) {
    return has(row(from).next, to);
}

bool is_source(RankSlotState state) {
    return state >= S::connecting && state <= S::draining;
}
bool is_target(RankSlotState state) {
    return state >= S::preparing && state <= S::going;
}
bool is_snapshot(RankSlotState state) {
    return state >= S::shutting;
}
bool is_touched(RankSlotState state) {
    return state >= S::closing && state <= S::resuming;
}

bool is_urgent(RankSlotState state) {
    const bool at_rest = state <= S::connected || state == S::preparing || state == S::ready;
    return !at_rest && state != S::frozen;
}

const char* name(SnapWork work) {
    return row(work).name;
}

bool may_follow(SnapWork from, SnapWork to) {
    return has(row(from).next, to);
}

}  // namespace ghost::plugin
