// SPDX-License-Identifier: BSD-3-Clause
// A copy of pages of one process, by their address.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/bytes.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/remote_read.hpp"

namespace ghost::core {

// Keeps where the contents are; they lie in a space, which lives longer. One thread at a time; the
// contents may be written by any.
class PageStore {
  public:
    // Gives every page of the set a place; a page that has one keeps it.
    Status reserve(const PageRuns& pages, Space& space);
    // Forgets pages; their places are lost until the space is reset.
    void drop(const PageRuns& pages);
    void clear() { extents_.clear(); }

    // The places of the pages of a set, all of which must have one; in order of address.
    void locate(std::span<const PageRun> pages, std::vector<PagePiece>& out) const;

    PageRuns pages() const;
    uint64_t bytes() const;

  private:
    std::vector<PagePiece> extents_;  // sorted by address
};

}  // namespace ghost::core
