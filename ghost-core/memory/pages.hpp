// SPDX-License-Identifier: BSD-3-Clause
// The pages of a tree on their way: where they come from and where they go to.
#pragma once

#include <cstdint>
#include <span>
#include <sys/types.h>
#include <sys/uio.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/format.hpp"

namespace ghost::core {

// Pages of one process that have to be moved.
struct TaskPages {
    int inner_pid = 0;  // names it in the ghost
    pid_t pid = 0;      // as numbered here
    std::vector<PageRun> ranges;

    uint64_t bytes() const;
};

// The order pages are sent in: of all processes' ranges (ascending), taken together where little is
// between them, first the ends, then what lies between those. A task that is restored cannot go on
// before its thread-local storage is there (rseq(2) reads it), and that lies at an end of a
// mapping, often next to large ones: what is left to do for it is done while the bulk still comes.
std::vector<TaskPages> ends_first(const std::vector<TaskPages>& tasks);

// At most one chunk of pages of one process.
struct PageBatch {
    int inner_pid = 0;
    std::vector<PageRun> runs;    // without pages that hold only zeros
    std::vector<iovec> contents;  // of the runs, in order; points into `buffer`
    uint64_t bytes = 0;           // in the runs
    uint64_t zero_bytes = 0;      // looked at and left out
    char* buffer = nullptr;       // chunk_limit bytes, of the caller
};

class PageSource {
  public:
    virtual ~PageSource() = default;
    // Fills the batch (its buffer is set by the caller); false when there are no more pages.
    virtual Result<bool> next(PageBatch& batch) = 0;
};

class PageSink {
  public:
    virtual ~PageSink() = default;
    // Puts the runs' contents (which lie one after the other) where they belong, beginning after
    // `done` bytes of them. Returns how many bytes are done then; fewer than there are means that
    // the rest has no place yet: call again later.
    virtual Result<uint64_t> put(int inner_pid, std::span<const PageRun> runs, const char* contents,
                                 uint64_t done) = 0;
};

// Reads the pages of stopped processes. One thread.
class ProcessPages : public PageSource {
  public:
    explicit ProcessPages(std::vector<TaskPages> tasks) : tasks_(std::move(tasks)) {}
    Result<bool> next(PageBatch& batch) override;
    uint64_t total() const;  // bytes to look at in all

  private:
    std::vector<TaskPages> tasks_;
    size_t task_ = 0;      // the next batch begins in this task,
    size_t range_ = 0;     // in this range of it,
    uint64_t offset_ = 0;  // after so many bytes of the range
};

// Whether the page of `size` bytes holds only zeros.
bool is_zero_page(const char* page, size_t size);

}  // namespace ghost::core
