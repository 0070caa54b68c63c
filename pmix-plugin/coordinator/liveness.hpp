// SPDX-License-Identifier: BSD-3-Clause
// Which daemons answer: ping and pong, and which are given up.
#pragma once

#include <functional>
#include <map>
#include <set>

#include "pmix-plugin/coordinator/settings.hpp"
#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

// Loop thread only; owned by the coordinator.
class Liveness {
  public:
    // hosts: does a rank of the job live on the node (also one that is on its way there)?
    // given_up: called after a daemon was given up, whoever did it.
    Liveness(CoordinatorRuntime& adapter, const CoordinatorSettings& settings,
             std::function<bool(NodeId)> hosts, std::function<void(NodeId)> given_up);

    void start();
    void stop();
    // A rank has attached. Daemons may be slow to start: silence counts from the launch on.
    void launched() { launched_ = true; }
    void pong(NodeId from, const Pong& message);
    // Pings every live daemon out of turn; returns the number to ask answered() about. `look`: how
    // its ranks stand is asked for, too.
    uint64_t ping_now(bool look = false);
    // Why this rank could not act when its node last looked; empty: it could.
    std::string standing_of(RankId rank) const;
    // Has every live daemon answered ping n or a later one?
    bool answered(uint64_t n) const;
    // A name for a message: the first daemon that has not answered ping n.
    std::string first_silent(uint64_t n) const;

    bool alive(NodeId node) const;
    // It has not answered for so long that it counts as out of reach.
    bool is_silent(NodeId node) const;
    // Does a rank live there, or is one bound to wake there?
    bool hosts_ranks(NodeId node) const { return hosts_(node); }
    std::vector<NodeId> live_nodes() const;
    // Who answers an order: the numbers below the highest live daemon's and one, without those that
    // are no live daemon's (node/snapshot_participant.hpp).
    DaemonSet tree() const;
    std::string name_of(NodeId node) const;
    bool is_given_up(NodeId node) const { return gone_.contains(node); }
    // It has been told to leave, and hosts nothing.
    void dismiss(NodeId node) { gone_.insert(node); }
    // The node hosts no rank and is out of the job from now on; tells the adapter unless it knows.
    void give_up(NodeId node, bool tell_adapter);

  private:
    struct Node {
        uint64_t answered = 0;  // highest ping number
        int missed = 0;         // regular pings since the last answer
        bool reported = false;
        std::vector<RankStanding> still;
    };

    void tick();
    void check(NodeId id, Node& node);
    void send_pings(bool look);

    CoordinatorRuntime& adapter_;
    const CoordinatorSettings& settings_;
    std::function<bool(NodeId)> hosts_;
    std::function<void(NodeId)> given_up_;
    std::map<NodeId, Node> nodes_;
    std::set<NodeId> gone_;
    uint64_t last_ping_ = 0;
    bool running_ = false;
    bool launched_ = false;
    TimerId timer_ = 0;
};

}  // namespace ghost::plugin
