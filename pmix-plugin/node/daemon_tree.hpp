// SPDX-License-Identifier: BSD-3-Clause
// The tree over the live daemons by which the steps of a snapshot are answered (docs/PROTOCOL.md,
// "A snapshot of the job").
#pragma once

#include <vector>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"

namespace ghost::plugin {

// Live daemons ordered by number; the parent of the one at place i is at place (i-1)/8. Everybody
// makes it from the same order of the coordinator, so nobody needs to agree with anybody.
class DaemonTree {
  public:
    static constexpr NodeId width = 8;

    DaemonTree() = default;
    // Daemons 0 to count-1 but those in `without`, as seen by `self`.
    DaemonTree(NodeId count, std::vector<NodeId> without, NodeId self);

    bool member() const { return member_; }  // false: self is none of them
    bool root() const { return member_ && place_ == 0; }
    NodeId parent() const { return parent_; }  // the root's is itself
    const std::vector<NodeId>& children() const { return children_; }

  private:
    bool member_ = false;
    NodeId place_ = 0;
    NodeId parent_ = 0;
    std::vector<NodeId> children_;
};

}  // namespace ghost::plugin
