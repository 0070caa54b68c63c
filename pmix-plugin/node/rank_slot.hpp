// SPDX-License-Identifier: BSD-3-Clause
// A rank's place on one node: its connections, and what operations do to it here. Three machines,
// each with a table: how open the rank is, its move, its wrapper's work for a snapshot.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/state_machine.hpp"
#include "kernet-btl/agent/messages.hpp"
#include "pmix-plugin/runtime/interface/control_connection.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

// How far the rank is from computing with everything open.
enum class Quiesce {
    open,      // it runs
    gating,    // it closes its gates
    gated,     // it has
    opening,   // it opens them again: it was busy, another one was, or the operation is off
    closing,   // it has left the PMIx server and closes the rest; end-of-file is the end
    quiet,     // it holds nothing that could not be carried: its tree may be frozen
    frozen,    // its tree is frozen until the job ends or is to go on (then = kill, stop)
    resuming,  // its tree goes on, it attaches again
};

// What a move does to it on this node. At a restart `preparing` to `going` only.
enum class Transfer {
    none,
    connecting,  // source: the wrapper connects to the target
    connected,   // source: it has; the rank is quiesced
    copying,     // source: a live move, the rank runs on while its memory is copied
    exporting,   // source: the wrapper freezes the tree and sends the ghost
    exported,    // source: the tree is frozen
    returning,   // source: the move is off; the rank is on its way to being open
    leaving,     // source: decided; the wrapper destroys the tree
    draining,    // source: the tree is gone, its output is being read
    preparing,   // target: the restore wrapper starts
    ready,       // target: it listens, or imports
    held,        // target: the ghost is whole, and held
    switched,    // target: the bookkeeping is ours
    going,       // target: the tree runs, the rank attaches
};

// What its wrapper does for a snapshot.
enum class SnapWork {
    idle,
    preparing,   // looks at the rank and copies its memory, the rank runs
    ready,       // waits for the order to freeze
    freezing,    // freezes the tree and lets it go on
    writing,     // the ghost goes to its file
    written,     // and is there
    failed,      // it said why; it is to be told that the snapshot is off
    cancelling,  // it throws away what it has
};

template <typename State>
struct SlotRow {
    State state;
    const char* name;
    uint32_t next;
    bool urgent = false;  // the rank is frozen, or is about to: whoever serves it must not wait
};

// The rank may end at any time: then it is open, as far as anybody has to wait for it.
inline constexpr StateTable quiesce_states([] {
    using Q = Quiesce;
    return std::to_array<SlotRow<Q>>({
        {Q::open, "open", to({Q::gating})},
        {Q::gating, "gating", to({Q::gated, Q::opening, Q::open}), true},
        {Q::gated, "gated", to({Q::closing, Q::opening, Q::open}), true},
        {Q::opening, "opening", to({Q::open}), true},
        {Q::closing, "closing", to({Q::quiet, Q::open}), true},
        {Q::quiet, "quiet", to({Q::frozen, Q::resuming, Q::open}), true},
        {Q::frozen, "frozen", to({Q::resuming, Q::open})},
        {Q::resuming, "resuming", to({Q::open}), true},
    });
}());

// `leaving` is what the coordinator decided: it follows from wherever the source may be by then.
inline constexpr StateTable transfer_states([] {
    using T = Transfer;
    return std::to_array<SlotRow<T>>({
        {T::none, "none", to({T::connecting, T::preparing, T::leaving})},
        {T::connecting, "connecting", to({T::connected, T::returning, T::leaving})},
        {T::connected, "connected", to({T::exporting, T::returning, T::leaving})},
        {T::copying, "copying", to({T::exporting, T::returning, T::leaving})},
        {T::exporting, "exporting", to({T::exported, T::copying, T::returning, T::leaving}), true},
        {T::exported, "exported", to({T::returning, T::leaving}), true},
        {T::returning, "returning", to({T::none, T::leaving})},
        {T::leaving, "leaving", to({T::draining}), true},
        {T::draining, "draining", 0, true},
        {T::preparing, "preparing", to({T::ready})},
        {T::ready, "ready", to({T::held})},
        {T::held, "held", to({T::switched, T::going}), true},
        {T::switched, "switched", to({T::going}), true},
        {T::going, "going", to({T::none}), true},
    });
}());

inline constexpr StateTable snap_works([] {
    using W = SnapWork;
    return std::to_array<SlotRow<W>>({
        {W::idle, "idle", to({W::preparing})},
        {W::preparing, "preparing", to({W::ready, W::failed, W::cancelling, W::idle})},
        {W::ready, "ready", to({W::freezing, W::failed, W::cancelling, W::idle})},
        {W::freezing, "freezing", to({W::writing, W::failed, W::cancelling, W::idle})},
        {W::writing, "writing", to({W::written, W::failed, W::cancelling, W::idle})},
        {W::written, "written", to({W::idle, W::failed, W::cancelling})},
        {W::failed, "failed", to({W::cancelling, W::idle})},
        {W::cancelling, "cancelling", to({W::idle, W::preparing})},
    });
}());

constexpr bool is_source(Transfer transfer) {
    return transfer >= Transfer::connecting && transfer <= Transfer::draining;
}
constexpr bool is_target(Transfer transfer) {
    return transfer >= Transfer::preparing;
}

// Source: its gate may be closed.
constexpr bool waits_for_gate(Transfer transfer) {
    return transfer == Transfer::connected || transfer == Transfer::copying;
}

// What a snapshot or a restart of the job has to do with the rank.
struct SlotSnapshot {
    bool participates = false;  // the rank takes part in the one under way
    bool restart = false;       // which is a restart
    bool off = false;           // and is called off: the rank is brought home
    SnapWork work = SnapWork::idle;
    Stage stage = Stage::prepare;
    std::string why;  // why it cannot be; empty: nothing is wrong
    // The rank's hello that came before the wrapper's word that its tree runs.
    std::shared_ptr<ControlConnection> early;
    std::optional<kernet::RankHello> early_hello;
    std::optional<kernet::Location> location;  // where the rank listens since it came back
    std::optional<Written> row;                // the wrapper's last words
    uint64_t bytes = 0, total = 0;
    int64_t pause_us = 0;
};

// What the rank shares with others of this node in the operation it is in.
struct SlotSharing {
    std::vector<SharedPart> parts;
    std::vector<SharedPart> seen;  // by this daemon, for a wrapper that may not look
    int stills = 0;                // how often its wrapper waits, or has waited, for them
    bool answered = false;         // a move: its gate is closed, or could not be
    // What takes the memory's place here, until all have mapped it.
    std::vector<std::shared_ptr<const Fd>> files;
};

// A rank that cannot act now, or not in MPI any more.
struct Standstill {
    std::string state;  // for `ghost ps`
    std::string why;    // for whoever asked for something: a sentence, with the cure
};

struct RankSlot {
    RankId rank = 0;
    Quiesce quiesce = Quiesce::open;
    Transfer transfer = Transfer::none;
    SlotSnapshot snap;
    SlotSharing sharing;
    uint64_t seq = 0;    // of the operation the rank is in, or was in last
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
    std::string busy;           // why the rank cannot be quiesced now; empty: it can
    std::string still;          // why it cannot act; empty: it can, as far as is known
    bool seen_still = false;    // at the last look
    uint32_t tag = 0;           // of the call it waits in
    int votes = 0;
    std::optional<TimerId> timer;
    int64_t output_waited = 0;

    std::set<RankId> peers;  // whose changes the rank is told

    // It runs, and no move has anything to do with it.
    bool at_rest() const { return quiesce == Quiesce::open && transfer == Transfer::none; }
    bool is_urgent() const {
        return quiesce_states[quiesce].urgent || transfer_states[transfer].urgent;
    }
};

}  // namespace ghost::plugin
