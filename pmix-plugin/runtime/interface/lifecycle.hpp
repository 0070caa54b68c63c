// SPDX-License-Identifier: BSD-3-Clause
// In mpirun: daemons that go, the job's end, and requests that do not come through the `ghost`
// command.
#pragma once

#include <functional>
#include <string>

#include "base/result.hpp"
#include "pmix-plugin/protocol/parts.hpp"
#include "pmix-plugin/runtime/interface/job_view.hpp"

namespace ghost::plugin {

class Lifecycle {
  public:
    virtual ~Lifecycle() = default;

    // --- daemons that die or cannot be reached ---
    // A daemon's connection broke. Returning true: it is given up, the job goes on without it.
    virtual void on_node_lost(std::function<bool(NodeId node)> handler) = 0;
    // Our own decision: the node is no longer part of the job (no rank of ours is on it).
    virtual void give_up_node(NodeId node) = 0;
    // The same of a daemon that ends by itself: `gone` is called when it has, once.
    virtual void dismiss_node(NodeId node, std::function<void()> gone) = 0;
    // A daemon for a node that has none is started. `runs` is called once, later: it knows of the
    // job and hears messages; or why not, and then it is no part of the job (no call for one that
    // was given up meanwhile).
    virtual Result<NewNode> start_daemon(const std::string& /*host*/, int /*slots*/,
                                         std::function<void(const Status&)> /*runs*/) {
        return make_error(Code::unsupported, "start a daemon in this runtime");
    }
    // Our own decision: it is no part of the job. Before or after `runs`.
    virtual void give_up_start(NodeId /*node*/) {}
    // A rank has ended as the program does, by itself, with this status. One that ended the job is
    // not told of.
    virtual void on_rank_ended(std::function<void(RankId rank, int status)> /*handler*/) {}
    // A signal has ended this rank, or it gave up (0), and the job ends because of it. Called once
    // at most.
    virtual void on_rank_lost(std::function<void(RankId rank, int signal)> /*handler*/) {}
    // In a recovery, before the ranks are started: this rank's node may ask for the input since
    // then. And after it, the ranks are back: mpirun's own input is read for them again.
    virtual void give_input_again(RankId /*rank*/, uint64_t /*bytes*/) {}
    virtual void input_goes_on() {}
    // No recovery will ask for what came before that.
    virtual void forget_input_before(uint64_t /*bytes*/) {}
    // Ends the job with a message and an exit status, as mpirun would after a failure.
    virtual void abort_job(int status, const std::string& why) = 0;
    // Ends the job because that was asked for: `why` is printed as it is, nothing of a failure is.
    virtual void end_job(int status, const std::string& why) { abort_job(status, why); }

    // --- requests ---
    // Calls `handler` on the loop for every such signal mpirun gets, in place of what mpirun would
    // do with it; for SIGCONT beside it. Fails if the signal cannot be taken over.
    virtual Status on_signal(int /*signum*/, std::function<void()> /*handler*/) { return {}; }
    // A PMIx_Job_control request of ours, from a rank or a tool. A rank has its answer already,
    // that its request was heard: while it waits in PMIx its gate cannot be closed. The
    // answer has no room for why nothing came of it.
    struct JobControl {
        ControlOrder order;
        // Answers the requester, once, at any later time: why is empty if it is done.
        std::function<void(const std::string& why)> answer;
    };
    virtual void on_job_control(std::function<void(JobControl request)> /*handler*/) {}
};

}  // namespace ghost::plugin
