// SPDX-License-Identifier: BSD-3-Clause
// A job of any size in one process, for counting messages: the coordinator and the node's part of a
// snapshot are the real ones, the ranks of a node are only counted and answer at once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pmix-plugin/coordinator/coordinator.hpp"
#include "pmix-plugin/node/snapshot_participant.hpp"

namespace ghost::plugin::scale {

// What one step of a snapshot or a recovery cost. An order to all is one message to every daemon;
// how the runtime spreads it is its own affair.
struct StepCost {
    std::string step;
    uint64_t most_received = 0;  // by one daemon, from those below it
    uint64_t most_sent = 0;      // by one daemon
    uint64_t all = 0;            // answers between daemons
    int depth = 0;               // messages one after the other until the coordinator knew
};

struct Report {
    uint64_t ranks = 0;
    uint32_t nodes = 0;
    bool complete = false;  // the snapshot, or the recovery, is
    std::string error;
    int orders = 0;           // broadcasts of the coordinator
    uint64_t most_local = 0;  // messages between one daemon and its wrappers and ranks
    uint64_t to_coordinator = 0;
    std::vector<StepCost> steps;  // in order
    double seconds = 0;           // of this machine
};

// Messages of one daemon and one rank's wrapper and agent in a snapshot: snap_prepare, snap_ready,
// gate, gated, close, snap_freeze, snap_captured, hello, welcome, attached, snap_written, snap_end.
inline constexpr uint64_t local_messages = 12;

struct Reports {
    Report snapshot;
    Report recovery;  // from it, after the last node was lost: until all ranks are back
};
// Of a job of that size. The folder is temporary and removed.
Reports measure(uint64_t ranks, uint32_t per_node);

// Levels of the tree below its root: ceil(log8) of the nodes, nearly.
int tree_depth(uint32_t nodes);

}  // namespace ghost::plugin::scale
