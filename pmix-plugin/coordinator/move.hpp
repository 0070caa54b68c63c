// SPDX-License-Identifier: BSD-3-Clause
// One move of a rank as plain data, its states and the table of what may follow what.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "pmix-plugin/coordinator/coordinator.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

enum class MoveState {
    checking,      // nothing has been asked of anyone
    preparing,     // B starts a restore wrapper
    connecting,    // A's wrapper connects to it
    holding,       // every daemon answers; then no job-wide fence may complete
    gating,        // the rank is asked to close its gates, again and again
    transferring,  // the rank stands; its ghost goes from A to B
    switching,     // decided: every daemon moves the rank's entries, A destroys its copy
    going,         // B lets the rank run
    done,          // the rank runs at B
    aborting,      // A lets the rank go on, B drops its copy
    refused,       // nothing was done
    failed,        // the rank did not move, or was lost
};

const char* name(MoveState state);
// The transition table.
bool may_follow(MoveState from, MoveState to);
// Longest stay in a state; 0: the state does not wait.
int64_t limit_of(MoveState state, const CoordinatorSettings& settings);
// done, refused, failed
bool is_final(MoveState state);
// switching, going, done: the copy at B is the rank, whatever happens.
bool is_decided(MoveState state);
// The rank stands, or is about to.
bool is_urgent(MoveState state);

struct Move {
    MoveState state = MoveState::checking;
    uint64_t seq = 0;
    uint32_t epoch = 0;  // of the placement after it
    RankId rank = 0;
    NodeId from = 0;
    NodeId to = 0;
    std::string from_name;
    std::string to_name;
    std::string mode;

    std::optional<AgentThread> agent;  // of the rank, as its wrapper must know it
    uint64_t ping = 0;                 // every daemon must have answered this ping
    bool fences_held = false;          // released or settled exactly once
    bool gate_tried = false;           // the rank may stand
    bool exported = false;
    bool held = false;
    uint64_t bytes = 0;
    uint64_t total = 0;
    uint64_t rounds = 0;
    std::set<NodeId> unanswered;  // daemons whose `switched` is missing
    int votes = 0;

    int64_t started = 0;    // µs, the coordinator's clock
    int64_t gate_sent = 0;  // the last `gate`
    int64_t downtime = 0;
    int64_t lasted = 0;  // the whole move
    bool moved = false;
    bool harmed = false;  // the job was
    bool ended = false;   // the rank has, while it was tried
    std::string why;      // of a failure
};

}  // namespace ghost::plugin
