// SPDX-License-Identifier: BSD-3-Clause
// Daemons that die or cannot be reached, in mpirun.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <sys/socket.h>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin::orte41 {

// ORTE's main thread only.
class Daemons {
  public:
    // Asked when a daemon's connection breaks while the job runs. True: it is given up.
    void on_lost(std::function<bool(NodeId)> handler) { ask_ = std::move(handler); }
    // ORTE reports a daemon as failed. True: it is given up, ORTE must not react.
    bool failed(NodeId node);
    // Takes the daemon out of the job: no message goes there, nothing is expected from it, its
    // launcher here is ended, and the job's exit status is not touched by any of that.
    void give_up(NodeId node);
    // The same of one that ends by itself; its launcher may stay until then.
    void dismiss(NodeId node, std::function<void()> gone);
    // What mpirun keeps to start that daemon (ssh) is ended.
    static void end_launcher(NodeId node);
    // To be called in mpirun ten times in that time, but every look_us at least. A connection to a
    // daemon whose node has answered nothing for so long (is_unanswered()) is ended: ORTE hears of
    // it then as of any daemon that fails, and not after the quarter of an hour that the kernel
    // would take. A daemon that is stopped or busy keeps its connection. Two looks have to agree:
    // after a pause of the whole machine the answer may be on its way.
    void end_cut_connections(int64_t dead_after_us);
    static constexpr int64_t look_us = 1'000'000;
    // The same in a daemon, of its connection to mpirun, every lease_look_us, in a job that
    // recovers. True at the second look in a row: mpirun is about to start the ranks of this node
    // elsewhere, so they must end now.
    bool lease_is_over(int64_t dead_after_us);
    static constexpr int64_t lease_look_us = 100'000;
    // In a daemon: where its connection to mpirun leads; none while there is none.
    static std::optional<sockaddr_storage> mpirun_address();
    // ORTE has planned its routes anew: those to daemons that are out of the job are taken out.
    void keep_out() const;

    // What an end of a launcher has made of mpirun's exit status is undone, while nothing else has
    // failed.
    void keep_exit_status() const;

  private:
    bool take_out(NodeId node);
    void has_ended(NodeId node);

    std::function<bool(NodeId)> ask_;
    std::set<NodeId> given_up_;
    std::set<int> unanswered_;                           // descriptors, at the last look
    bool cut_off_ = false;                               // from mpirun, at the last look
    std::map<NodeId, std::function<void()>> dismissed_;  // that have not ended
};

}  // namespace ghost::plugin::orte41
