// SPDX-License-Identifier: BSD-3-Clause
// Sets of pages in the pieces in which a live migration sends them. Private to ghost-core/engine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "ghost-core/format/format.hpp"
#include "ghost-core/memory/page_set.hpp"

namespace ghost::core {

constexpr size_t batch_bytes = 1 << 20;

inline PageRuns as_set(PageRuns runs) {
    make_set(runs);
    return runs;
}

// At most batch_bytes of the set from `at` (index and offset) on.
inline bool next_batch(const PageRuns& set, std::pair<size_t, uint64_t>& at,
                       std::vector<PageRun>& out) {
    out.clear();
    // the runs themselves are in the message too
    for (size_t room = batch_bytes - 65536; at.first < set.size() && room > 0;) {
        if (out.size() >= 65536 / sizeof(PageRun)) break;
        const auto& run = set[at.first];
        const uint64_t part = std::min<uint64_t>(room / 4096 * 4096, run.bytes - at.second);
        if (part == 0) break;
        out.push_back({run.start + at.second, part});
        room -= part;
        at.second += part;
        if (at.second == run.bytes) at = {at.first + 1, 0};
    }
    return !out.empty();
}

// The same pages in at most so many pieces, with what lies between them.
inline PageRuns in_pieces(PageRuns pages, size_t most) {
    for (uint64_t gap = 4096; pages.size() > most; gap *= 2) {
        PageRuns joined;
        for (const auto& run : pages)
            if (!joined.empty() && run.start - joined.back().end() <= gap)
                joined.back().bytes = run.end() - joined.back().start;
            else
                joined.push_back(run);
        pages = std::move(joined);
    }
    return pages;
}

}  // namespace ghost::core
