// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/page_set.hpp"

#include <algorithm>

namespace ghost::core {

void append(PageRuns& set, uint64_t start, uint64_t end) {
    if (start >= end) return;
    if (!set.empty() && set.back().end() >= start)
        set.back().bytes = std::max(set.back().end(), end) - set.back().start;
    else
        set.push_back({start, end - start});
}

void make_set(PageRuns& runs) {
    const auto before = [](const PageRun& a, const PageRun& b) { return a.start < b.start; };
    if (!std::is_sorted(runs.begin(), runs.end(), before))
        std::sort(runs.begin(), runs.end(), before);
    PageRuns out;
    out.reserve(runs.size());
    for (const auto& run : runs) append(out, run.start, run.end());
    runs = std::move(out);
}

PageRuns unite(std::span<const PageRun> a, std::span<const PageRun> b) {
    PageRuns out;
    out.reserve(a.size() + b.size());
    for (size_t i = 0, j = 0; i < a.size() || j < b.size();) {
        const bool first = j == b.size() || (i < a.size() && a[i].start < b[j].start);
        const auto& run = first ? a[i++] : b[j++];
        append(out, run.start, run.end());
    }
    return out;
}

PageRuns intersect(std::span<const PageRun> a, std::span<const PageRun> b) {
    PageRuns out;
    for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
        append(out, std::max(a[i].start, b[j].start), std::min(a[i].end(), b[j].end()));
        if (a[i].end() < b[j].end())
            i++;
        else
            j++;
    }
    return out;
}

PageRuns subtract(std::span<const PageRun> a, std::span<const PageRun> b) {
    PageRuns out;
    size_t j = 0;
    for (const auto& run : a) {
        uint64_t at = run.start;
        while (j < b.size() && b[j].end() <= at) j++;
        for (size_t k = j; k < b.size() && b[k].start < run.end(); k++) {
            append(out, at, std::min(b[k].start, run.end()));
            at = std::max(at, b[k].end());
        }
        append(out, at, run.end());
    }
    return out;
}

PageRuns cut(std::span<const PageRun> set, uint64_t start, uint64_t end) {
    PageRuns out;
    auto at = std::partition_point(set.begin(), set.end(),
                                   [start](const PageRun& run) { return run.end() <= start; });
    for (; at != set.end() && at->start < end; ++at)
        append(out, std::max(at->start, start), std::min(at->end(), end));
    return out;
}

PageRuns pieces_of(const PageRun& run, uint64_t bytes) {
    PageRuns out;
    for (uint64_t at = run.start; at < run.end();) {
        const uint64_t until = std::min(run.end(), at / bytes * bytes + bytes);
        out.push_back({at, until - at});
        at = until;
    }
    return out;
}

uint64_t bytes_of(std::span<const PageRun> set) {
    uint64_t sum = 0;
    for (const auto& run : set) sum += run.bytes;
    return sum;
}

}  // namespace ghost::core
