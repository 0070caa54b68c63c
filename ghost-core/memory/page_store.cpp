// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/page_store.hpp"

#include <algorithm>

namespace ghost::core {
namespace {

uint64_t end_of(const PagePiece& piece) {
    return piece.start + piece.bytes;
}

void append(std::vector<PagePiece>& list, const PagePiece& piece) {
    if (!list.empty() && end_of(list.back()) == piece.start &&
        list.back().to + list.back().bytes == piece.to)
        list.back().bytes += piece.bytes;
    else
        list.push_back(piece);
}

PagePiece part_of(const PagePiece& piece, uint64_t start, uint64_t end) {
    return {start, end - start, piece.to + (start - piece.start)};
}

}  // namespace

Status PageStore::reserve(const PageRuns& pages, Space& space) {
    std::vector<PagePiece> fresh;
    for (const auto& run : subtract(pages, this->pages()))
        for (uint64_t at = run.start; at < run.end();) {
            auto place = space.take(run.end() - at);
            if (!place) return place.error();
            append(fresh, {at, place->bytes, place->at});
            at += place->bytes;
        }
    if (fresh.empty()) return {};
    std::vector<PagePiece> all;
    all.reserve(extents_.size() + fresh.size());
    for (size_t i = 0, j = 0; i < extents_.size() || j < fresh.size();)
        if (j == fresh.size() || (i < extents_.size() && extents_[i].start < fresh[j].start))
            append(all, extents_[i++]);
        else
            append(all, fresh[j++]);
    extents_ = std::move(all);
    return {};
}

void PageStore::drop(const PageRuns& pages) {
    if (pages.empty()) return;
    std::vector<PagePiece> left;
    size_t j = 0;
    for (const auto& piece : extents_) {
        uint64_t at = piece.start;
        while (j < pages.size() && pages[j].end() <= at) j++;
        for (size_t k = j; k < pages.size() && pages[k].start < end_of(piece); k++) {
            if (pages[k].start > at) left.push_back(part_of(piece, at, pages[k].start));
            at = std::max(at, pages[k].end());
        }
        if (at < end_of(piece)) left.push_back(part_of(piece, at, end_of(piece)));
    }
    extents_ = std::move(left);
}

void PageStore::locate(std::span<const PageRun> pages, std::vector<PagePiece>& out) const {
    auto at = extents_.begin();
    for (const auto& run : pages) {
        at = std::partition_point(
            at, extents_.end(), [&](const PagePiece& piece) { return end_of(piece) <= run.start; });
        for (; at != extents_.end() && at->start < run.end(); ++at) {
            out.push_back(
                part_of(*at, std::max(at->start, run.start), std::min(end_of(*at), run.end())));
            if (end_of(*at) > run.end()) break;
        }
    }
}

PageRuns PageStore::pages() const {
    PageRuns out;
    for (const auto& piece : extents_) core::append(out, piece.start, end_of(piece));
    return out;
}

uint64_t PageStore::bytes() const {
    uint64_t sum = 0;
    for (const auto& piece : extents_) sum += piece.bytes;
    return sum;
}

}  // namespace ghost::core
