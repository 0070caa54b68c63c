// The states of a rank agent and the one table of what leads from which to which.
#pragma once

#include <cstdint>
#include <optional>

namespace kernet {

enum class AgentState : uint8_t {
    starting,    // no node agent (yet, or it was lost); data flows
    attached,    // the node agent has answered `hello`; data flows
    gated,       // data and PMIx stand still, everything is still open
    suspended,   // nothing open; waits for the wake-up signal, frozen or not
    waking,      // connecting to the node agent of wherever this is now
    finalizing,  // the application is leaving MPI; the end
};

enum class AgentEvent : uint8_t {
    welcomed,   // answer to hello
    lost,       // the control connection ended
    gate,       // both gates are closed
    ungate,     // both are open again
    close,      // everything is closed
    signalled,  // the wrapper lets us run: here or elsewhere
    awake,      // data and PMIx work again
    stop,       // MPI_Finalize
};

constexpr const char* state_name(AgentState state) {
    constexpr const char* names[] = {"starting",  "attached", "gated",
                                     "suspended", "waking",   "finalizing"};
    return names[static_cast<int>(state)];
}

constexpr const char* event_name(AgentEvent event) {
    constexpr const char* names[] = {"welcomed", "lost",      "gate",  "ungate",
                                     "close",    "signalled", "awake", "stop"};
    return names[static_cast<int>(event)];
}

// No value: the event has no place in this state.
constexpr std::optional<AgentState> next_state(AgentState from, AgentEvent event) {
    struct Row {
        AgentState from;
        AgentEvent event;
        AgentState to;
    };
    using S = AgentState;
    using E = AgentEvent;
    constexpr Row table[] = {
        {S::starting, E::welcomed, S::attached}, {S::starting, E::lost, S::starting},
        {S::starting, E::stop, S::finalizing},   {S::attached, E::welcomed, S::attached},
        {S::attached, E::lost, S::starting},     {S::attached, E::gate, S::gated},
        {S::attached, E::ungate, S::attached},   {S::attached, E::stop, S::finalizing},
        {S::gated, E::ungate, S::attached},      {S::gated, E::close, S::suspended},
        {S::suspended, E::signalled, S::waking}, {S::waking, E::awake, S::attached},
    };
    for (const Row& row : table) {
        if (row.from == from && row.event == event) return row.to;
    }
    return std::nullopt;
}

}  // namespace kernet
