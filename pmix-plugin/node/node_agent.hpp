// SPDX-License-Identifier: BSD-3-Clause
// The node agent: carries out moves, snapshots and restarts on one node, in mpirun and in every
// orted (docs/PROTOCOL.md, party N).
//
// It listens at the adapter's rank_socket() for the wrappers and ranks of this node, keeps one slot
// per local rank, passes the coordinator's orders on, and holds this node's copy of the table
// of locations. Everything runs on the adapter's loop; nothing blocks, nothing throws.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/proc.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

// What the agent does to the process tree of a rank when its wrapper cannot; the tests replace it.
struct TreeControl {
    std::function<bool(pid_t init)> alive;  // empty: pidfd poll
    std::function<void(pid_t init)> kill;   // empty: SIGKILL by pidfd
    // What keeps the process that is numbered `inner` in the tree (0: its first program) from
    // acting, or who looks after the tree; empty: /proc.
    std::function<Halt(pid_t init, pid_t inner)> halt;
    std::function<Halt(pid_t init)> halt_of_parent;
};

// Times are microseconds.
struct NodeSettings {
    std::string wrapper = "ghost-wrapper";  // program started with --restore and --adopt
    int64_t listen_retry_us = 2'000;        // until the job's number is known
    int64_t die_us = 3'000'000;             // then the agent kills the tree itself
    int64_t output_us = 3'000'000;          // then unread output of a moved rank is given up
    int64_t output_poll_us = 1'000;
    int64_t end_us = 5'000'000;  // for the runtime to end the job when a rank ends as it should not
    int64_t look_us = 500'000;   // between two looks at what keeps a rank from acting
    bool threads = true;  // what blocks on a disk runs on a thread; false: the simulated clock
    TreeControl tree;
    // Why the tree under this init cannot leave the node as it is now; empty: nothing is known
    // against it, as also if there is no such function.
    std::function<std::string(pid_t init)> tied;
    bool looks_for_sharers = false;  // of memory, for wrappers that may not themselves
    bool recovers = false;           // the job goes on after the loss of a rank
    // Then, in a daemon: so often it says unasked that it lives. What is not answered shows it that
    // it is cut off. 0: never.
    int64_t beat_us = 0;
};

// Owned by the plugin; used on the loop only. The adapter must outlive it.
class NodeAgent {
  public:
    NodeAgent(NodeRuntime& adapter, NodeSettings settings);
    ~NodeAgent();
    NodeAgent(const NodeAgent&) = delete;
    NodeAgent& operator=(const NodeAgent&) = delete;

    // Registers with the adapter and starts to listen, at once if rank_socket() is known, else as
    // soon as it is (see listen_now()). Never fails for want of a job.
    Status start();
    // Listens if that was not possible yet. The plugin calls it on the loop when the launch message
    // has arrived and before the first rank is forked; idempotent.
    Status listen_now();
    // Closes every connection and timer; touches no rank. May be called twice.
    void stop();

  private:
    class Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace ghost::plugin
