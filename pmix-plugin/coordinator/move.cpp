// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/move.hpp"

#include <algorithm>
#include <array>

namespace ghost::plugin {
namespace {

using S = MoveState;

struct Row {
    S state;
    const char* name;
    int64_t CoordinatorSettings::*limit;
    std::array<S, 3> next;  // unused places repeat the last one
};

constexpr std::array<Row, 12> table{{
    {S::checking, "checking", nullptr, {S::preparing, S::refused, S::done}},
    {S::preparing,
     "preparing",
     &CoordinatorSettings::prepare_us,
     {S::connecting, S::failed, S::failed}},
    {S::connecting,
     "connecting",
     &CoordinatorSettings::connect_us,
     {S::holding, S::aborting, S::failed}},
    {S::holding, "holding", &CoordinatorSettings::hold_us, {S::gating, S::aborting, S::failed}},
    {S::gating, "gating", &CoordinatorSettings::gate_us, {S::transferring, S::aborting, S::failed}},
    {S::transferring,
     "transferring",
     &CoordinatorSettings::transfer_us,
     {S::switching, S::aborting, S::failed}},
    {S::switching, "switching", &CoordinatorSettings::switch_us, {S::going, S::failed, S::failed}},
    {S::going, "going", &CoordinatorSettings::go_us, {S::done, S::failed, S::failed}},
    {S::done, "done", nullptr, {S::done, S::done, S::done}},
    {S::aborting, "aborting", &CoordinatorSettings::abort_us, {S::failed, S::failed, S::failed}},
    {S::refused, "refused", nullptr, {S::refused, S::refused, S::refused}},
    {S::failed, "failed", nullptr, {S::failed, S::failed, S::failed}},
}};

const Row& row(S state) {
    return table[static_cast<size_t>(state)];
}

}  // namespace

const char* name(MoveState state) {
    return row(state).name;
}

bool may_follow(MoveState from, MoveState to) {
    return !is_final(from) && std::ranges::find(row(from).next, to) != row(from).next.end();
}

int64_t limit_of(MoveState state, const CoordinatorSettings& settings) {
    auto limit = row(state).limit;
    if (limit == nullptr) return 0;
    return settings.*limit + (state == S::holding ? settings.until_given_up_us() : 0);
}

bool is_final(MoveState state) {
    return state == S::done || state == S::refused || state == S::failed;
}

bool is_urgent(MoveState state) {
    return state == S::gating || state == S::transferring || state == S::switching ||
           state == S::going || state == S::aborting;
}

bool is_decided(MoveState state) {
    return state == S::switching || state == S::going || state == S::done;
}

}  // namespace ghost::plugin
