// SPDX-License-Identifier: BSD-3-Clause
// The coordinator: decides about moves of ranks, snapshots and restarts of the job, in mpirun only
// (docs/PROTOCOL.md, party C).
//
// It listens at <session dir>/ghost.sock for the `ghost` command, queues the moves and snapshots
// asked for and carries them out with the node agents (operations/), makes a snapshot every
// interval, watches that every daemon answers, and holds the table of locations. Everything
// runs on the adapter's loop; nothing blocks, nothing throws.
#pragma once

#include <functional>
#include <memory>

#include "pmix-plugin/coordinator/settings.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

struct SnapshotOrder;
struct SnapshotRun;

// Owned by the plugin; used on the loop only. The adapter must outlive it.
class Coordinator {
  public:
    Coordinator(CoordinatorRuntime& adapter, CoordinatorSettings settings);
    ~Coordinator();
    Coordinator(const Coordinator&) = delete;
    Coordinator& operator=(const Coordinator&) = delete;

    // Registers with the adapter and starts to listen and to ping. Fails if the socket cannot be
    // made; the job runs on without the `ghost` command then.
    Status start();
    // Closes the socket, ends the timers and answers every client whose move is still waiting.
    // Messages that come later are dropped. May be called twice.
    void stop();
    // Asks for a snapshot, of some ranks or of all, as `ghost checkpoint`, signals and the schedule
    // do. `finished` is called once, perhaps before this returns.
    void snapshot(SnapshotOrder order, std::function<void(const SnapshotRun&)> finished);

  private:
    class Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace ghost::plugin
