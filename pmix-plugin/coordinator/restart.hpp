// SPDX-License-Identifier: BSD-3-Clause
// One restart of the job as plain data, its states and the table of what may follow what.
#pragma once

#include <cstdint>
#include <string>

#include "pmix-plugin/coordinator/coordinator.hpp"

namespace ghost::plugin {

enum class RestartState {
    reading,    // the manifest
    launching,  // the runtime starts the wrappers
    checking,   // they look at what is there; nothing is changed
    holding,    // they cut files back, import and hold; no rank has run
    going,      // the trees run, the ranks attach
    done,
    failed,
};

const char* name(RestartState state);
// The transition table.
bool may_follow(RestartState from, RestartState to);
// Longest time without progress; 0: the state does not wait.
int64_t limit_of(RestartState state, const CoordinatorSettings& settings);

struct Restart {
    RestartState state = RestartState::reading;
    std::string folder;  // of the snapshot
    std::string name;
    std::string taken;  // when the snapshot was
    uint32_t epoch = 0;
    uint64_t ranks = 0;
    uint64_t bytes = 0, total = 0;
    int64_t started = 0;  // µs, the coordinator's clock
};

}  // namespace ghost::plugin
