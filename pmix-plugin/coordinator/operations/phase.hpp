// SPDX-License-Identifier: BSD-3-Clause
// What all operations on ranks have in common: the phases they go through, and the form of their
// state tables.
#pragma once

#include "base/state_machine.hpp"
#include "pmix-plugin/coordinator/settings.hpp"

namespace ghost::plugin {

enum class Phase : uint8_t {
    prepare,  // nothing has been done to a rank
    quiesce,  // the job's fences are held, gates close
    capture,  // trees stand; their state is taken
    commit,   // it becomes what holds from now on
    resume,   // ranks go on, here or there
    finish,   // over
};

// A row of an operation's table. An operation that is refused what its table does not have gives up
// as far as it can: see Operation::impossible().
template <typename State>
struct OperationRow {
    State state;
    const char* name;
    Phase phase;
    uint32_t next;
    // Longest stay, or longest time without progress; none: the state does not wait.
    int64_t CoordinatorSettings::*limit = nullptr;
    // Ranks stand, or are about to: whoever serves them must not wait for a processor.
    bool urgent = false;
    // Every daemon has to answer: one that has gone silent is given up first.
    bool every_daemon = false;

    constexpr int64_t limit_us(const CoordinatorSettings& settings) const {
        if (limit == nullptr) return 0;
        return settings.*limit + (every_daemon ? settings.until_given_up_us() : 0);
    }
};

}  // namespace ghost::plugin
