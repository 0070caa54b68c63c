// SPDX-License-Identifier: BSD-3-Clause
// Post-copy of a ghost that is at hand as a whole (in memory, or a file that is mapped): the tree
// is made from its skeleton and may run at once; its pages follow as they are touched, and behind.
//
// What a failure means: post_copy.hpp. The ghost has been checked from end to end before anything
// is made, so only its loss (a file cut short meanwhile) can be one here.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/memory/post_copy.hpp"

namespace ghost::core {

// The pages of a full ghost by process and address. Any thread after open().
class GhostPages : public PageProvider {
  public:
    // Checks all of the ghost, which must outlive this. unsupported: it is incremental.
    static Result<std::unique_ptr<GhostPages>> open(std::span<const char> ghost);

    PageRuns pages(int inner_pid) override;
    Status read(int inner_pid, const PageRun& run, char* to) override;

  private:
    GhostPages() = default;
    std::map<int, std::map<uint64_t, std::span<const char>>> runs_;  // by address
};

// Owned by the thread that made it, which is the parent of the tree.
class LazyTree {
  public:
    // Makes the tree: every task stopped; release_tree(held()) lets it run, long before its pages
    // are there. On failure nothing is left.
    static Result<std::unique_ptr<LazyTree>> make(std::span<const char> ghost,
                                                  const CriuSettings& criu,
                                                  const std::vector<InheritFd>& inherit);
    // Ends the tree if its pages are not all in place; so does the death of this process.
    ~LazyTree();

    const HeldTree& held() const { return held_; }
    // Until the tree needs the ghost no more.
    Status wait();
    PostCopy::Stats stats() const { return copy_->stats(); }

  private:
    LazyTree() = default;
    HeldTree held_;
    bool complete_ = false;
    std::unique_ptr<GhostPages> pages_;
    std::unique_ptr<PostCopy> copy_;
    std::optional<FaultKeeper> keeper_;
};

}  // namespace ghost::core
