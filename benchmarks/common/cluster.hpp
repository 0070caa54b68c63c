// SPDX-License-Identifier: BSD-3-Clause
// The virtual cluster a benchmark runs on, through the `ghost lab` command.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "benchmarks/common/command.hpp"

namespace ghost::bench {

// Bytes of IPv4 and of KerNet's raw frames, both directions, over a node's link since its counters
// were set up.
struct Traffic {
    int64_t control = 0;  // connections of the node's daemons (orted, sshd)
    int64_t ending = 0;   // TCP without data, but for new connections: how old ones end
    int64_t other = 0;    // everything else: all that ranks could send or receive
};

// A lab that goes down with the object, and with the process, however that ends. One thread.
class Cluster {
  public:
    // Starts lab `name` with `nodes` nodes; `ghost` is the command's path.
    static Result<Cluster> up(const std::string& ghost, const std::string& name, int nodes);
    Cluster(Cluster&& other) noexcept;
    Cluster& operator=(Cluster&&) = delete;
    ~Cluster();

    // argv that runs `command` on a node.
    std::vector<std::string> on(const std::string& node,
                                const std::vector<std::string>& command) const;
    Status cut(const std::string& node) const;
    Status heal(const std::string& node) const;
    // Limits the rate of the node's link both ways; `rate` as `ghost lab shape` takes it.
    Status shape(const std::string& node, const std::string& rate) const;
    // The IPv4 address the other nodes know it by.
    Result<std::string> address(const std::string& node) const;

    // Sets up nftables counters on the node. A packet is control if the node's end of it is a TCP
    // port one of its daemons has open now; so call it when no connection is being made.
    Status count_traffic(const std::string& node) const;
    Result<Traffic> traffic(const std::string& node) const;
    Status forget_traffic(const std::string& node) const;

  private:
    Cluster(std::string ghost, std::string name);
    Status hire_janitor();
    Status link_verb(const char* verb, const std::string& node,
                     const std::string& value = "") const;

    std::string ghost_;
    std::string name_;
    // Takes the lab down when lifeline_ is closed; -1: moved from.
    pid_t janitor_ = -1;
    Fd lifeline_;
};

// The ports in the output of `ss -Htanp` that belong to mpirun's and ssh's daemons.
std::vector<int> daemon_ports(const std::string& sockets);
// nftables: they see every IPv4 packet of the node, the first match counts, and every raw frame of
// a KerNet link (docs/WIRE.md) that is from the node or for it. `ports` are the daemons'.
std::string traffic_rules(const std::vector<int>& ports);
// What they have counted; `prefix` runs a command where they are.
Result<Traffic> traffic_of(const std::vector<std::string>& prefix);

}  // namespace ghost::bench
