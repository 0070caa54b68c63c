// SPDX-License-Identifier: BSD-3-Clause
// A lab's network: one network namespace per node and one, "switch", that holds the bridge, so that
// nothing shows in the machine's own and every lab has 10.77.0.0/24 to itself. The namespaces are
// those of ip-netns(8), named ghost-LAB-NODE; a node's end of its link is eth0, the switch's end is
// named like the node. All calls are made with the lab's folder locked, by one thread.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "tools/lab/state.hpp"

namespace ghost::tools::lab {

// ghost-LAB-NODE; NODE may be "switch".
std::string namespace_name(const std::string& lab, const std::string& node);
// The file whose open descriptor setns(2) takes.
std::string namespace_path(const std::string& lab, const std::string& node);

// Labs of which at least one namespace exists.
std::set<std::string> labs_with_namespaces();
// Node names ("switch" among them) of the namespaces of this lab.
std::vector<std::string> namespaces_of(const std::string& lab);

// Makes the switch; it must not exist.
Status make_switch(const std::string& lab);
// Makes the node's namespace and its link to the switch, up, shaped to node.rate.
Status make_link(const std::string& lab, const NodeState& node);
// Kills every process in the namespace, whoever started it, and removes it with its links.
// Success if there is none.
Status remove_namespace(const std::string& lab, const std::string& node);

enum class Link { absent, up, cut };
Link link_state(const std::string& lab, const NodeState& node);
// Takes the switch's end of the link down or up: packets vanish, nobody is told.
Status set_link(const std::string& lab, const NodeState& node, bool up);

// fast-ethernet, gigabit, 10g, none, or a rate as tc(8) writes it (250mbit).
bool is_valid_rate(const std::string& rate);
// Limits both directions of the node's link.
Status shape_link(const std::string& lab, const NodeState& node);

// True if the process is in this network namespace.
bool is_inside(pid_t pid, const std::string& lab, const std::string& node);

}  // namespace ghost::tools::lab
