// SPDX-License-Identifier: BSD-3-Clause
// The states of a rank agent and what may follow each.
#pragma once

#include "base/state_machine.hpp"

namespace kernet {

enum class AgentState : uint8_t {
    starting,    // no node agent (yet, or it was lost); data flows
    attached,    // the node agent has answered `hello`; data flows
    gated,       // data and PMIx are held, everything is still open
    suspended,   // nothing open; waits for the wake-up signal, frozen or not
    waking,      // connecting to the node agent of wherever this is now
    finalizing,  // the application is leaving MPI; the end
};

struct AgentStateRow {
    AgentState state;
    const char* name;
    uint32_t next;
};

// What is held cannot be stopped or lost half way.
using ghost::to;
constexpr ghost::StateTable agent_states(std::to_array<AgentStateRow>({
    {AgentState::starting, "starting",
     to({AgentState::starting, AgentState::attached, AgentState::finalizing})},
    {AgentState::attached, "attached",
     to({AgentState::attached, AgentState::starting, AgentState::gated, AgentState::finalizing})},
    {AgentState::gated, "gated", to({AgentState::attached, AgentState::suspended})},
    {AgentState::suspended, "suspended", to({AgentState::waking, AgentState::finalizing})},
    {AgentState::waking, "waking", to({AgentState::attached, AgentState::finalizing})},
    {AgentState::finalizing, "finalizing", 0},
}));

}  // namespace kernet
