// SPDX-License-Identifier: BSD-3-Clause
// How a rank changes its daemon: the fences that must not complete meanwhile (in mpirun), and the
// two ends' bookkeeping (in every daemon). Source of the steps: ARCHITECTURE.md, "The life of a
// migration".
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "base/result.hpp"
#include "pmix-plugin/protocol/node_wrapper.hpp"
#include "pmix-plugin/runtime/interface/job_view.hpp"

namespace ghost::plugin {

// In mpirun: job-wide fences must not complete while a rank is between two daemons.
class JobFences {
  public:
    virtual ~JobFences() = default;

    // False: a fence is completing right now; try again a millisecond later.
    virtual bool hold_fences() = 0;
    virtual void release_fences() = 0;          // nothing has moved
    virtual void settle_fences(int votes) = 0;  // after a switch: sum of all daemons' votes
};

enum class PreMark {
    ok,    // the rank's server has dropped it; every count still includes it
    busy,  // it is inside a PMIx call that cannot be moved now; try again a moment later
};

class Rehoming {
  public:
    virtual ~Rehoming() = default;

    // --- source node ---
    // What detach_from_server() would say now; changes nothing. A snapshot asks for every rank
    // before it detaches the first.
    virtual PreMark may_detach(RankId /*rank*/, uint32_t /*fence_tag*/) { return PreMark::ok; }
    // fence_tag: 0 if the rank is outside PMIx, else the tag of the call it waits in.
    virtual PreMark detach_from_server(RankId rank, uint32_t fence_tag) = 0;
    // The rank attached to this same server again (after an abort): its open calls get the new
    // peer.
    virtual void reattach(RankId rank) = 0;
    virtual std::string pmix_uri() const = 0;  // this node's PMIx server for attach

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
    // child of spawn_restore(). Returns this daemon's votes for settle_fences(): the contributions
    // it will make to the fence under way, all told.
    virtual Result<int> switch_rank(RankId rank, NodeId from, NodeId to) = 0;
    // At `from`, after the tree is gone: true while output of the rank is still unread here.
    virtual bool output_pending(RankId rank) const = 0;
    // At `from`, when nothing is pending: gives up the rank's output forwarding.
    virtual void close_output(RankId rank) = 0;

    // --- a recovery ---
    // A local rank was killed by SIGKILL or SIGBUS, or gave up: with its exit code. True: the
    // runtime is not told; let_end() tells it after all.
    virtual void on_rank_died(std::function<bool(RankId rank, int status)> /*handler*/) {}
    virtual void let_end(RankId /*rank*/) {}
    // Every local rank ends (the caller has killed their trees) and is forgotten, with all calls
    // and fences of the job; those daemons are no part of it. `stopped` is called once, when no
    // process of a rank is left here; not, if it is called again before.
    virtual void stop_ranks(const std::vector<NodeId>& /*lost*/,
                            std::function<void(const Status&)> /*stopped*/) {}
    // Then: ranks are where `places` says, and a wrapper that restarts its rank from the snapshot
    // is started for each that is to be here.
    struct Births {
        std::string life;
        std::string snapshot;
        std::vector<std::pair<RankId, NodeId>> places;
        std::optional<RankId> input_of = {};  // mpirun has input to give it again
        bool input_ended = false;             // mpirun has no more input for the others
    };
    virtual Status start_ranks(const Births& /*births*/) {
        return make_error(Code::unsupported, "start ranks anew in this runtime");
    }

    // Only mpirun does not see itself what it shows of a rank of its own node: a wrapper has given
    // it this much; or it is not known how much.
    virtual void output_given(RankId /*rank*/, const std::optional<OutputGiven>& /*what*/) {}

    // --- processes that work for the node agent ---
    // Starts one with a control socket as descriptor 3; `ended` is called once when it has ended.
    virtual Result<Spawned> spawn_helper(const std::vector<std::string>& /*argv*/,
                                         std::function<void(int status)> /*ended*/) {
        return make_error(Code::unsupported, "start a process in this runtime");
    }

    // --- nodes that leave and join ---
    // This daemon ends, a moment after what it has said is under way; nothing of the job is here.
    virtual void leave_job() {}
    // Another daemon is part of the job from now on. Nothing happens if this one knows.
    virtual void learn_node(const NewNode& /*node*/) {}

    // --- wrappers that die ---
    // The wrapper of a local rank ended by itself. Returning true means "taken care of, do not
    // report the rank as ended" (a new wrapper adopts the tree; see adopt_wrapper()).
    virtual void on_wrapper_exit(std::function<bool(RankId rank, int status)> handler) = 0;
    // Starts `argv` as the rank's new wrapper with the given stdio (the runtime's ends the old one
    // had).
    virtual Result<Spawned> adopt_wrapper(RankId rank, const std::vector<std::string>& argv,
                                          const std::vector<int>& stdio) = 0;
    // The init of a tree whose wrapper died has become this daemon's child (the daemons are child
    // subreapers, prctl(2)): `ended` gets its wait status once, when it ends. Ask for it before
    // that; the status of a child nobody asked for is lost.
    virtual void on_orphan_exit(pid_t /*pid*/, std::function<void(int status)> /*ended*/) {}
};

}  // namespace ghost::plugin
