// SPDX-License-Identifier: BSD-3-Clause
// A ghost and its parents as one stream: the newest one's skeleton, and every page once, from the
// ghost that has its last content. Private to ghost-core/engine.
#pragma once

#include <memory>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/chain.hpp"
#include "ghost-core/format/reader.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

// Pages of one process with their contents one after the other, in the buffer they were read to or
// in the memory the ghost is in.
struct ChainPages {
    int inner_pid = 0;
    std::vector<PageRun> runs;
    const char* contents = nullptr;
    uint64_t bytes = 0;
};

// One thread, but for interrupt(). Each ghost is read in one pass, the newest first; of the pages
// only addresses are kept.
class ChainReader {
  public:
    // `in` and every parent must outlive it.
    explicit ChainReader(Resource& in);

    // The newest ghost's head. unsupported: its pages come in rounds.
    Status head(GhostHead& head);
    // The parent of the last ghost given; refused: it is another one. `next` becomes the one to be
    // given after it: none if it is the full one.
    Status add(Resource& in, std::optional<ParentRef>& next);

    // The next chunk that counts: of the skeleton, or pages (then `pages` is set and points into
    // `buffer`, of chunk_limit bytes, or into the newest ghost), or the end. Pages are still to be
    // checked (GhostReader::check(), with this buffer). At the end everything else has been, also
    // that each parent is the one its child was made from.
    Result<Chunk> next(char* buffer, ChainPages& pages);

    // GhostReader's, of the newest ghost.
    void goes_on() { links_.front().reader->goes_on(); }

    void interrupt();

  private:
    struct Link {
        Resource* in = nullptr;
        std::unique_ptr<GhostReader> reader;
        GhostHead head;
    };

    Status note(const Chunk& chunk, const PagesView& view);
    void take_wanted(const PagesView& view, char* buffer, ChainPages& pages) const;
    Result<bool> go_to_parent();

    std::vector<Link> links_;  // newest first
    size_t at_ = 0;
    Inheritance inheritance_;
};

}  // namespace ghost::core
