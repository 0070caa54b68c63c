// SPDX-License-Identifier: BSD-3-Clause
// What the coordinator and the node agents need from the MPI runtime they live in.
//
// One implementation per runtime: orte41/ (Open MPI 4.1's mpirun and orted), later PRRTE, and a
// simulated one in the tests. Everything is called, and calls back, on the runtime's own event
// thread ("the loop"); nothing here blocks.
// Source of the steps: design of re-homing, ARCHITECTURE.md "The life of a migration".
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "base/result.hpp"
#include "pmix-plugin/runtime/interface/daemon_inbox.hpp"

namespace ghost::plugin {

using RankId = uint32_t;
using TimerId = uint64_t;
using WatchId = uint64_t;

struct NodeInfo {
    NodeId id = 0;
    std::string name;
    bool alive = true;
};

struct RankInfo {
    RankId rank = 0;
    NodeId node = 0;
    pid_t pid = 0;         // the wrapper's process id, on the rank's node only; else 0
    bool running = false;  // launched and not ended
};

enum class PreMark {
    ok,    // the rank's server has dropped it; every count still includes it
    busy,  // it is inside a PMIx call that cannot be moved now; try again a moment later
};

class RuntimeAdapter {
  public:
    virtual ~RuntimeAdapter() = default;

    // --- who and where ---
    virtual NodeId self() const = 0;
    virtual bool is_coordinator() const = 0;   // true in mpirun
    virtual std::string job_name() const = 0;  // the application job's number in decimal; "" before
    virtual bool job_running() const = 0;      // launched, and not every rank has ended
    virtual std::vector<NodeInfo> nodes() const = 0;
    virtual std::vector<RankInfo> ranks() const = 0;
    // In mpirun: guests, processes of other jobs than this one, spawned by its ranks or by each
    // other, that have not ended.
    virtual size_t guests() const { return 0; }
    // In mpirun: some daemon hears from it through another one. Contributions of ranks that have
    // moved cannot be counted there.
    virtual bool relayed() const { return false; }
    virtual std::optional<NodeId> find_node(const std::string& name) const = 0;
    virtual int slots(NodeId node) const = 0;     // 0: unknown
    virtual std::string session_dir() const = 0;  // job family's folder on this node, exists
    virtual std::string secret() const = 0;       // the job's secret in hex; "" before the launch
    virtual std::string rank_socket() const = 0;  // address ranks and wrappers connect to, here
    virtual std::string pmix_uri() const = 0;     // this node's PMIx server for attach

    // --- coordinator: what the user asked for, and what a snapshot must know of the job ---
    // An MCA parameter as it is set for mpirun ("ghost_checkpoint_interval"); nothing if it is not.
    virtual std::optional<std::string> parameter(const std::string& /*name*/) const { return {}; }
    // Fields of the manifest with these names (docs/SNAPSHOT_FORMAT.md): runtime, apps, mpirun,
    // stdin, nodes, and ranks [{rank, app, binding}]. Asked for at every snapshot, before the ranks
    // stand; a field that is missing is written as its type's empty value. Texts may be any bytes.
    // The offset of stdin is where mpirun began to read: what the rank was given since is added.
    virtual Json job_facts() const { return Json::object(); }

    // --- messages between coordinator and node agents (reliable, in order per pair) ---
    virtual void send(NodeId to, const std::string& packet) = 0;
    // To every live daemon, this one included, in the same order everywhere.
    virtual void broadcast(const std::string& packet) = 0;
    // Handlers add up (in mpirun both coordinator and node agent register one): each is called with
    // every message and takes the types that are its own. An empty handler is never passed.
    virtual void on_message(DaemonInbox::Handler handler) = 0;
    template <typename T>
    void tell(NodeId to, const T& message) {
        send(to, schema::encode(message));
    }
    template <typename T>
    void tell_all(const T& message) {
        broadcast(schema::encode(message));
    }

    // --- the loop ---
    virtual TimerId after(int64_t us, std::function<void()> action) = 0;  // once
    virtual void cancel(TimerId timer) = 0;
    virtual WatchId watch(int fd, std::function<void()> readable) = 0;  // level triggered
    virtual void unwatch(WatchId watch) = 0;
    // From hurry(true) to hurry(false), which nest, this daemon goes before ranks that spin: others
    // stand until it has done its part. Without the privilege nothing changes.
    virtual void hurry(bool /*on*/) {}

    // --- coordinator: job-wide fences must not complete while a rank is between two daemons ---
    // False: a fence is completing right now; try again a millisecond later.
    virtual bool hold_fences() = 0;
    virtual void release_fences() = 0;          // after an abort: nothing moved
    virtual void settle_fences(int votes) = 0;  // after the switch: sum of all daemons' votes

    // --- source node ---
    // What detach_from_server() would say now; changes nothing. A snapshot asks for every rank
    // before it premarks the first.
    virtual PreMark may_detach(RankId /*rank*/, uint32_t /*fence_tag*/) { return PreMark::ok; }
    // fence_tag: 0 if the rank is outside PMIx, else the tag of the call it waits in.
    virtual PreMark detach_from_server(RankId rank, uint32_t fence_tag) = 0;
    // The rank attached to this same server again (after an abort): its open calls get the new
    // peer.
    virtual void reattach(RankId rank) = 0;

    // --- target node ---
    struct Spawned {
        pid_t pid = 0;
        ControlSocket control;  // our end; the child has the other one as descriptor 3
    };
    // Starts a wrapper as this daemon's child with the stdio pipes of a rank; the daemon's ends are
    // kept for switch_rank(). The child is told "--control-fd 3" by the caller in argv.
    // ended is called once when the child ends before switch_rank() took it over.
    virtual Result<Spawned> spawn_restore(RankId rank, const std::vector<std::string>& argv,
                                          std::function<void(int status)> ended) = 0;
    // All of the rank is held by what spawn_restore() made; the coordinator is told so after this,
    // and the switch may follow.
    virtual void expect_client(RankId /*rank*/) {}
    // Kills and forgets what spawn_restore() made (after an abort).
    virtual void discard_restore(RankId rank) = 0;

    // --- all nodes: the switch of the bookkeeping ---
    // Moves the rank's entries from daemon `from` to daemon `to` in this daemon. At `from` it also
    // takes the rank out of the PMIx server and the local children; at `to` it puts it in, with the
    // child of spawn_restore(). Returns this daemon's votes for settle_fences().
    virtual Result<int> switch_rank(RankId rank, NodeId from, NodeId to) = 0;
    // At `from`, after the tree is gone: true while output of the rank is still unread here.
    virtual bool output_pending(RankId rank) const = 0;
    // At `from`, when nothing is pending: gives up the rank's output forwarding.
    virtual void close_output(RankId rank) = 0;

    // --- wrappers that die ---
    // The wrapper of a local rank ended by itself. Returning true means "taken care of, do not
    // report the rank as ended" (a new wrapper adopts the tree; see adopt_wrapper()).
    virtual void on_wrapper_exit(std::function<bool(RankId rank, int status)> handler) = 0;
    // Starts `argv` as the rank's new wrapper with the given stdio (ORTE's ends the old one had).
    virtual Result<Spawned> adopt_wrapper(RankId rank, const std::vector<std::string>& argv,
                                          const std::vector<int>& stdio) = 0;
    // The init of a tree whose wrapper died has become this daemon's child (the daemons are child
    // subreapers, prctl(2)): `ended` gets its wait status once, when it ends. Ask for it before
    // that; the status of a child nobody asked for is lost.
    virtual void on_orphan_exit(pid_t /*pid*/, std::function<void(int status)> /*ended*/) {}

    // --- daemons that die or cannot be reached ---
    // A daemon's connection broke. Returning true: it is given up, the job goes on without it.
    virtual void on_node_lost(std::function<bool(NodeId node)> handler) = 0;
    // Our own decision: the node is no longer part of the job (no rank of ours is on it).
    virtual void give_up_node(NodeId node) = 0;
    // Ends the job with a message and an exit status, as mpirun would after a failure.
    virtual void abort_job(int status, const std::string& why) = 0;
    // Ends the job because that was asked for: `why` is printed as it is, nothing of a failure is.
    virtual void end_job(int status, const std::string& why) { abort_job(status, why); }

    // --- coordinator: requests that do not come through the `ghost` command ---
    // Calls `handler` on the loop for every such signal mpirun gets, in place of what mpirun would
    // do with it; for SIGCONT beside it. Fails if the signal cannot be taken over.
    virtual Status on_signal(int /*signum*/, std::function<void()> /*handler*/) { return {}; }
    // A PMIx_Job_control request with PMIX_JOB_CTRL_CHECKPOINT from a rank or a tool. `then` is
    // "continue", "stop" or "kill" (directive "ghost.then"), "" if it was not given. A rank has its
    // answer already, that its request was heard: while it waits in PMIx its gate cannot be closed.
    struct JobControl {
        std::string then;
        // Answers the requester, once, at any later time: why is empty if the snapshot is complete.
        std::function<void(const std::string& why)> answer;
    };
    virtual void on_job_control(std::function<void(JobControl request)> /*handler*/) {}
};

}  // namespace ghost::plugin
