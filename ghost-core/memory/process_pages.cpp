// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cstring>

#include "ghost-core/format/host.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/memory/remote_read.hpp"

namespace ghost::core {
namespace {

// Runs of one batch: their table takes room in the chunk, and process_vm_readv takes 1024 pieces.
constexpr size_t runs_limit = 256;
constexpr uint64_t content_limit = chunk_limit - runs_limit * sizeof(PageRun);
// The C library's thread-local storage takes three pages.
constexpr uint64_t end_bytes = 64 << 10;

// Reads all runs, one after the other, to `to`.
Status read_runs(pid_t pid, std::span<const PageRun> runs, char* to) {
    std::vector<PagePiece> pieces;
    for (const auto& run : runs) {
        pieces.push_back({run.start, run.bytes, to});
        to += run.bytes;
    }
    return read_pages(pid, pieces, Vanished::is_error);
}

void add_page(PageBatch& batch, uint64_t start, char* content, uint64_t page) {
    if (!batch.runs.empty() && batch.runs.back().start + batch.runs.back().bytes == start)
        batch.runs.back().bytes += page;
    else
        batch.runs.push_back({start, page});
    auto& pieces = batch.contents;
    if (!pieces.empty() &&
        static_cast<char*>(pieces.back().iov_base) + pieces.back().iov_len == content)
        pieces.back().iov_len += page;
    else
        pieces.push_back({content, page});
    batch.bytes += page;
}

// Notes the pages of what was read, leaving out those that hold only zeros.
void sort_out(PageBatch& batch, std::span<const PageRun> read) {
    const uint64_t page = this_page_size();
    char* content = batch.buffer;
    for (const auto& run : read)
        for (uint64_t at = 0; at < run.bytes; at += page, content += page) {
            if (is_zero_page(content, page))
                batch.zero_bytes += page;
            else
                add_page(batch, run.start + at, content, page);
        }
}

}  // namespace

bool is_zero_page(const char* page, size_t size) {
    uint64_t first = 0;
    std::memcpy(&first, page, sizeof first);
    return first == 0 && std::memcmp(page, page + sizeof first, size - sizeof first) == 0;
}

uint64_t TaskPages::bytes() const {
    uint64_t sum = 0;
    for (const auto& range : ranges) sum += range.bytes;
    return sum;
}

std::vector<TaskPages> ends_first(const std::vector<TaskPages>& tasks) {
    std::vector<TaskPages> out, between;
    for (const auto& task : tasks) {
        out.push_back({task.inner_pid, task.pid, {}});
        between.push_back(out.back());
        const auto& ranges = task.ranges;
        for (size_t first = 0, after = 0; first < ranges.size(); first = after) {
            for (after = first + 1;
                 after < ranges.size() && ranges[after].start - ranges[after - 1].end() < end_bytes;
                 after++) {
            }
            const uint64_t low = ranges[first].start + end_bytes;
            const uint64_t high = std::max(low, ranges[after - 1].end() - end_bytes);
            for (size_t i = first; i < after; i++) {
                const uint64_t start = ranges[i].start, end = ranges[i].end();
                append(out.back().ranges, start, std::min(end, low));
                append(between.back().ranges, std::max(start, low), std::min(end, high));
                append(out.back().ranges, std::max(start, high), end);
            }
        }
    }
    out.insert(out.end(), between.begin(), between.end());
    return out;
}

uint64_t ProcessPages::total() const {
    uint64_t sum = 0;
    for (const auto& task : tasks_) sum += task.bytes();
    return sum;
}

Result<bool> ProcessPages::next(PageBatch& batch) {
    batch.runs.clear();
    batch.contents.clear();
    batch.bytes = batch.zero_bytes = 0;
    while (task_ < tasks_.size() && range_ == tasks_[task_].ranges.size()) {
        task_++;
        range_ = 0;
    }
    if (task_ == tasks_.size()) return false;
    const auto& task = tasks_[task_];
    batch.inner_pid = task.inner_pid;
    std::vector<PageRun> read;
    uint64_t bytes = 0, pages_left = runs_limit;
    // Zeros between may split what is read into as many runs as pages; the limit counts pages.
    const uint64_t page = this_page_size();
    while (range_ < task.ranges.size() && bytes < content_limit && pages_left > 0) {
        const auto& range = task.ranges[range_];
        const auto part = std::min(
            {range.bytes - offset_, (content_limit - bytes) / page * page, pages_left * page});
        if (part == 0) break;
        read.push_back({range.start + offset_, part});
        bytes += part;
        pages_left -= part / page;
        offset_ += part;
        if (offset_ == range.bytes) {
            range_++;
            offset_ = 0;
        }
    }
    GHOST_TRY(read_runs(task.pid, read, batch.buffer));
    sort_out(batch, read);
    return true;
}

}  // namespace ghost::core
