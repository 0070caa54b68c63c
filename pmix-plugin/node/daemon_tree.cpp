// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/node/daemon_tree.hpp"

#include <algorithm>

namespace ghost::plugin {
namespace {

// `without` is sorted. The daemon at a place: every missing one before it moves it on by one.
NodeId daemon_at(uint64_t place, const std::vector<NodeId>& without) {
    for (NodeId missing : without) {
        if (missing > place) break;
        ++place;
    }
    return static_cast<NodeId>(place);
}

}  // namespace

DaemonTree::DaemonTree(NodeId count, std::vector<NodeId> without, NodeId self) {
    std::ranges::sort(without);
    without.erase(std::unique(without.begin(), without.end()), without.end());
    std::erase_if(without, [count](NodeId id) { return id >= count; });
    auto before = std::ranges::lower_bound(without, self);
    member_ = self < count && (before == without.end() || *before != self);
    if (!member_) return;
    place_ = self - static_cast<NodeId>(before - without.begin());
    parent_ = place_ == 0 ? self : daemon_at((place_ - 1) / width, without);
    const uint64_t live = count - without.size();
    for (uint64_t i = 1; i <= width; ++i) {
        const uint64_t child = uint64_t{place_} * width + i;
        if (child < live) children_.push_back(daemon_at(child, without));
    }
}

}  // namespace ghost::plugin
