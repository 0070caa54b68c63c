// SPDX-License-Identifier: BSD-3-Clause
// A rank's place on one node: its connections, and what a move, a snapshot or a restart is doing to
// it here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pmix-plugin/runtime/interface/control_connection.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

enum class RankSlotState {
    home,        // the rank lives here, nothing moves
    connecting,  // source: the wrapper connects to the target
    connected,   // source: it has; the rank runs
    gating,      // source: the rank closes its gates
    ungating,    // source: and opens them again, the move is off
    closing,     // source: it has left the PMIx server and closes the rest, end-of-file is the end
    exporting,   // source: the wrapper freezes the tree and sends the ghost
    exported,    // source: the tree stands
    resuming,    // source: the move is off; the tree goes on and the rank attaches again
    leaving,     // source: decided; the wrapper destroys the tree
    draining,    // source: the tree is gone, its output is being read
    preparing,   // target: the restore wrapper starts
    ready,       // target: it listens, or imports
    held,        // target: the ghost is whole, and held
    switched,    // target: the bookkeeping is ours
    going,       // target: the tree runs, the rank attaches
    shutting,    // snapshot: the rank closes its gates
    shut,        // snapshot: it has; it waits for all others
    opening,     // snapshot: it opens them again: another rank was busy, or the snapshot is off
    parting,     // snapshot: it has left the PMIx server and closes the rest
    standing,    // snapshot: the wrapper freezes the tree; then `resuming`
    frozen,      // snapshot: the tree stands until the job ends (then = kill)
};

const char* name(RankSlotState state);
// The transition table.
bool may_follow(RankSlotState from, RankSlotState to);
bool is_source(RankSlotState state);
bool is_target(RankSlotState state);
bool is_snapshot(RankSlotState state);
// Its tree may stand or be between two servers: a new wrapper must let it go on if the move ends.
bool is_touched(RankSlotState state);
// The rank stands, or is about to: whoever serves it must not wait for a processor.
bool is_urgent(RankSlotState state);

// What the wrapper of a rank does for a snapshot, beside the state of the rank itself.
enum class SnapWork {
    idle,
    preparing,   // looks at the rank and copies its memory, the rank runs
    ready,       // waits for the word to stand
    standing,    // freezes the tree and lets it go on
    writing,     // the ghost goes to its file
    written,     // and is there
    failed,      // it said why; it is to be told that the snapshot is off
    cancelling,  // it throws away what it has
};

const char* name(SnapWork work);
bool may_follow(SnapWork from, SnapWork to);

struct SnapSeat {
    bool part = false;     // the rank takes part in the snapshot or restart under way
    bool restart = false;  // in a restart
    SnapWork work = SnapWork::idle;
    std::string busy;        // why the rank cannot take the present step now; empty: it can
    std::string stage, why;  // why the snapshot cannot be; empty: nothing is wrong
    uint32_t tag = 0;        // of the call the rank waits in
    // The rank's hello that came before the wrapper's word that its tree runs.
    std::shared_ptr<ControlConnection> early;
    Json early_hello;
    std::optional<kernet::Location> location;  // where the rank listens since it came back
    std::optional<Written> row;                // the wrapper's last words
    uint64_t bytes = 0, total = 0;
    int64_t pause_us = 0;
};

struct RankSlot {
    RankId rank = 0;
    RankSlotState state = RankSlotState::home;
    uint64_t seq = 0;    // of the move the state belongs to
    uint32_t epoch = 0;  // of the rank's placement here
    NodeId from = 0;
    NodeId to = 0;

    std::optional<AgentThread> thread;  // of the rank's agent, for the wrapper to signal
    std::string unmovable;              // why the wrapper could not make a tree that can move

    std::shared_ptr<ControlConnection> wrapper;
    std::shared_ptr<ControlConnection> agent;  // the rank's
    pid_t init = 0;                            // the tree's first process
    Fd tree;                                   // pidfd of it
    std::vector<Fd> spare;                     // the six descriptors of `hello`
    int adoptions = 0;
    int64_t input_bytes = 0;  // what its wrapper said it had taken of the input: for the next one
    pid_t orphan = 0;         // the init whose end the adapter reports to us

    bool finalizing = false;    // the rank said bye
    bool ended = false;         // the tree is no more
    bool unreported = false;    // and the runtime was not told: it may live on at the target
    bool failure_told = false;  // the coordinator knows that this move cannot go on
    bool abort_asked = false;   // while closing: resume as soon as the rank has closed
    int votes = 0;
    std::optional<TimerId> timer;
    int64_t output_waited = 0;

    SnapSeat snap;

    std::set<RankId> peers;  // whose changes the rank is told
};

}  // namespace ghost::plugin
