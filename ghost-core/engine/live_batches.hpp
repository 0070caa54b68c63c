// SPDX-License-Identifier: BSD-3-Clause
// Sets of pages in the pieces in which a live migration sends them. Private to ghost-core/engine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash.hpp"
#include "base/result.hpp"
#include "ghost-core/criu/kernel_state.hpp"
#include "ghost-core/format/format.hpp"
#include "ghost-core/memory/page_scan.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/memory/remote_read.hpp"

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

// The contents of these pages, one after the other.
inline Status read_batch(pid_t pid, const std::vector<PageRun>& runs, std::vector<char>& buffer) {
    std::vector<PagePiece> pieces;
    char* at = buffer.data();
    for (const auto& run : runs) {
        pieces.push_back({run.start, run.bytes, at});
        at += run.bytes;
    }
    return read_pages(pid, pieces, Vanished::is_left);
}

using PageHashes = std::unordered_map<uint64_t, uint64_t>;  // by address

// Pages of files that are the process's own by now: few, and not tracked, but compared by hash.
// Those that differ are given to `send(runs, contents)`: what is sent is what was hashed, for a
// page may soon be again what it was at an earlier look (malloc's own state).
Status own_copies(pid_t pid, const OwnMappings& maps, std::vector<char>& buffer, PageHashes& hashes,
                  auto&& send) {
    auto scan = PageScan::open(pid);
    if (!scan) return scan.error();
    std::vector<PageScan::Found> found;
    for (const auto& area : maps.altered) GHOST_TRY(scan->copied(area, found));
    PageRuns pages;
    for (const auto& run : found) pages.push_back({run.start, run.end - run.start});
    make_set(pages);
    std::vector<PageRun> runs;
    for (std::pair<size_t, uint64_t> at; next_batch(pages, at, runs);) {
        GHOST_TRY(read_batch(pid, runs, buffer));
        PageRuns differ;
        char *from = buffer.data(), *to = from;
        for (const auto& run : runs)
            for (uint64_t page = run.start; page < run.end(); page += 4096, from += 4096) {
                const uint64_t hash = XXH3_64bits(from, 4096);
                auto [entry, fresh] = hashes.try_emplace(page, hash);
                if (!fresh && entry->second == hash) continue;
                entry->second = hash;
                append(differ, page, page + 4096);
                if (to != from) std::memcpy(to, from, 4096);
                to += 4096;
            }
        if (!differ.empty()) GHOST_TRY(send(differ, static_cast<size_t>(to - buffer.data())));
    }
    return {};
}

}  // namespace ghost::core
