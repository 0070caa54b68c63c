// SPDX-License-Identifier: BSD-3-Clause
// Chains of incremental ghosts: which ghost of a chain gives a page. One thread.
//
// The contents of a page are what the ghost itself gives (pages or zero chunk), else, if the ghost
// is incremental and names it as present, the parent's by the same rule, else zeros. A chain is
// read newest ghost first, each in one pass; only addresses are kept, no contents.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/format.hpp"

namespace ghost::core {

// A set of addresses of one process, kept as disjoint runs.
class PageSet {
  public:
    void add(PageRun run);
    void remove(PageRun run);
    // Appends the parts of `run` that are in the set, ascending.
    void intersect(PageRun run, std::vector<PageRun>& out) const;
    bool empty() const { return runs_.empty(); }
    size_t size() const { return runs_.size(); }  // runs
    std::vector<PageRun> list() const;

  private:
    std::map<uint64_t, uint64_t> runs_;  // start → end
};

// What is still to be found in the ghosts of a chain.
class Inheritance {
  public:
    // Runs that are kept of one ghost, in all: 1 GiB; every other page of 128 GiB.
    static constexpr size_t most_runs = size_t{16} << 20;

    explicit Inheritance(size_t most = most_runs) : most_(most) {}
    // Statements of the ghost that is being read, in any order. refused: they are in more runs than
    // are kept, whatever a packed one unpacks to.
    Status owns(int inner_pid, std::span<const PageRun> runs);     // its pages and zero chunks
    Status present(int inner_pid, std::span<const PageRun> runs);  // its present chunks
    // The parts of `run` in the ghost being read that count: of the newest ghost all, of an
    // ancestor what no younger one gives or has dropped.
    std::vector<PageRun> wanted(int inner_pid, PageRun run) const;
    // Its end has come, its parent is read from now on. False: nothing is wanted of the parent.
    bool next();

  private:
    Status add(PageSet& set, std::span<const PageRun> runs);

    size_t most_;
    size_t kept_ = 0;  // runs of this ghost
    bool newest_ = true;
    std::map<int, PageSet> wanted_, owned_, present_;
};

// Whether a ghost (its head, before anything is made of it) is the parent that was named; refused
// with both ids if it is not, or cannot be one because its pages come in rounds.
Status check_parent_head(const ParentRef& named, const GhostHead& found);
// The same at its end, by the digest: the ghost is complete and the one the child was made from.
Status check_parent_digest(const ParentRef& named, const Contents& found);

}  // namespace ghost::core
