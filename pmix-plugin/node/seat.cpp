#include "pmix-plugin/node/seat.hpp"

#include <algorithm>
#include <array>

namespace ghost::plugin {
namespace {

using S = SeatState;

struct Row {
    S state;
    const char* name;
    std::array<S, 4> next;  // unused places repeat the last one
};

// `leaving` is what the coordinator decided: it follows from wherever the source may be by then.
constexpr std::array<Row, 16> table{{
    {S::home, "home", {S::connecting, S::preparing, S::leaving, S::leaving}},
    {S::connecting, "connecting", {S::connected, S::home, S::leaving, S::leaving}},
    {S::connected, "connected", {S::gating, S::home, S::leaving, S::leaving}},
    {S::gating, "gating", {S::connected, S::ungating, S::closing, S::leaving}},
    {S::ungating, "ungating", {S::home, S::leaving, S::leaving, S::leaving}},
    {S::closing, "closing", {S::exporting, S::resuming, S::leaving, S::leaving}},
    {S::exporting, "exporting", {S::exported, S::resuming, S::leaving, S::leaving}},
    {S::exported, "exported", {S::resuming, S::leaving, S::leaving, S::leaving}},
    {S::resuming, "resuming", {S::home, S::leaving, S::leaving, S::leaving}},
    {S::leaving, "leaving", {S::draining, S::draining, S::draining, S::draining}},
    {S::draining, "draining", {S::draining, S::draining, S::draining, S::draining}},
    {S::preparing, "preparing", {S::ready, S::ready, S::ready, S::ready}},
    {S::ready, "ready", {S::held, S::held, S::held, S::held}},
    {S::held, "held", {S::switched, S::switched, S::switched, S::switched}},
    {S::switched, "switched", {S::going, S::going, S::going, S::going}},
    {S::going, "going", {S::home, S::home, S::home, S::home}},
}};

const Row& row(S state) {
    return table[static_cast<size_t>(state)];
}

}  // namespace

const char* name(SeatState state) {
    return row(state).name;
}

bool may_follow(SeatState from, SeatState to) {
    return std::ranges::find(row(from).next, to) != row(from).next.end();
}

bool is_source(SeatState state) {
    return state >= S::connecting && state <= S::draining;
}
bool is_target(SeatState state) {
    return state >= S::preparing;
}
bool is_touched(SeatState state) {
    return state >= S::closing && state <= S::resuming;
}

}  // namespace ghost::plugin
