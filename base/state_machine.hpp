// SPDX-License-Identifier: BSD-3-Clause
// A state machine: an enum, one table with a row for every state, and one function that changes a
// state, logs the change and refuses what the table does not have.
//
//   enum class Door { open, closed };
//   struct DoorRow { Door state; const char* name; uint32_t next; };
//   constexpr StateTable doors(std::to_array<DoorRow>({
//       {Door::open, "open", to({Door::closed})},
//       {Door::closed, "closed", to({Door::open})},
//   }));
//   if (!doors.change(door, Door::closed, log::Level::info, [] { return "door 3"; })) return;
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "base/log.hpp"

namespace ghost {

// What may follow a state, a bit for each. Of an enum of at most 32 states.
template <typename State>
constexpr uint32_t to(std::initializer_list<State> next) {
    uint32_t bits = 0;
    for (State state : next) bits |= 1u << static_cast<unsigned>(state);
    return bits;
}

// Row i is the i-th state's, and every state can be reached from the first: checked when compiled.
template <typename Row, size_t N>
class StateTable {
  public:
    using State = decltype(Row::state);

    consteval explicit StateTable(const std::array<Row, N>& rows) : rows_(rows) {
        static_assert(N <= 32, "a bit for each state");
        uint32_t reached = 1;
        for (size_t step = 0; step < N; ++step) {
            for (size_t i = 0; i < N; ++i) reached |= (reached >> i & 1u) != 0 ? rows_[i].next : 0;
        }
        for (size_t i = 0; i < N; ++i) {
            if (static_cast<size_t>(rows_[i].state) != i) throw "rows are not in the enum's order";
        }
        if (reached != (N == 32 ? ~0u : (1u << N) - 1)) throw "a state that nothing leads to";
    }

    constexpr const Row& operator[](State state) const { return rows_[static_cast<size_t>(state)]; }
    constexpr auto begin() const { return rows_.begin(); }
    constexpr auto end() const { return rows_.end(); }
    constexpr const char* name(State state) const { return (*this)[state].name; }
    constexpr bool allows(State from, State to) const {
        return ((*this)[from].next >> static_cast<unsigned>(to) & 1u) != 0;
    }
    constexpr bool is_final(State state) const { return (*this)[state].next == 0; }

    // False: the table has no such change. That is a bug of ours, which is logged; the state stays.
    // `who()` names the machine, "move 3 of rank 1"; called only for a line that is written.
    template <typename Who>
    [[nodiscard]] bool change(State& state, State next, log::Level level, const Who& who) const {
        if (!allows(state, next)) {
            log::error("bug: {}: no way from {} to {}", who(), name(state), name(next));
            return false;
        }
        if (log::enabled(level) && state != next) {
            log::write(level, fmt::format("{}: {} -> {}", who(), name(state), name(next)));
        }
        state = next;
        return true;
    }

  private:
    std::array<Row, N> rows_;
};

}  // namespace ghost
