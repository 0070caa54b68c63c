// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/page_writer.hpp"

#include <algorithm>

#include "base/clock.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

// The table of runs takes room in the chunk: as many runs as every other page being zero makes.
constexpr uint64_t batch_bytes = chunk_limit - 4096;
constexpr size_t batches_at_once = 64;
constexpr int64_t progress_us = 5000;

struct Batch {
    std::vector<PagePiece> pieces;
    uint64_t bytes = 0;
    // Made from these:
    PagesChunk chunk;  // what is not zero
    PageRuns zero;
};

class PageWriter {
  public:
    PageWriter(const PageWriting& what, GhostWriter& writer, Workers& workers)
        : what_(what), writer_(writer), workers_(workers) {}

    Status run() {
        std::vector<TaskPages> there;
        for (const auto& task : what_.wanted) GHOST_TRY(plan(task, there));
        for (const auto& part : ends_first(there)) split(part);
        for (size_t first = 0; first < batches_.size(); first += batches_at_once)
            GHOST_TRY(write(first, std::min(batches_at_once, batches_.size() - first)));
        if (what_.differences)
            for (auto& [inner, runs] : zero_) {
                make_set(runs);
                GHOST_TRY(writer_.zero(inner, runs));
            }
        return {};
    }

  private:
    // Adds those of its pages that the copy has.
    Status plan(const TaskPages& task, std::vector<TaskPages>& there) {
        const auto found = what_.copy->processes().find(task.inner_pid);
        if (found == what_.copy->processes().end())
            return make_error(Code::internal, "find the copied pages of process",
                              std::to_string(task.inner_pid));
        const auto& copy = found->second;
        auto ranges = task.ranges;
        make_set(ranges);
        if (what_.differences) {
            GHOST_TRY(writer_.present(task.inner_pid, intersect(copy.known, ranges)));
            zero_[task.inner_pid] = intersect(copy.zero, ranges);
        }
        there.push_back({task.inner_pid, task.pid, intersect(copy.store.pages(), ranges)});
        return {};
    }

    void split(const TaskPages& part) {
        std::vector<PagePiece> pieces;
        what_.copy->processes().at(part.inner_pid).store.locate(part.ranges, pieces);
        const uint64_t page = this_page_size();
        const uint64_t most = batch_bytes / (page + sizeof(PageRun)) * page;
        bool fresh = true;
        for (auto piece : pieces)
            while (piece.bytes > 0) {
                if (fresh || batches_.back().bytes == most) {
                    batches_.emplace_back();
                    batches_.back().chunk.inner_pid = part.inner_pid;
                    fresh = false;
                }
                auto& batch = batches_.back();
                const uint64_t some = std::min(piece.bytes, most - batch.bytes);
                batch.pieces.push_back({piece.start, some, piece.to});
                batch.bytes += some;
                total_ += some;
                piece = {piece.start + some, piece.bytes - some, piece.to + some};
            }
    }

    // Takes the pages apart into those with content and zeros.
    static void sort_out(Batch& batch) {
        const uint64_t page = this_page_size();
        auto& [inner, runs, contents] = batch.chunk;
        for (const auto& piece : batch.pieces)
            for (uint64_t at = 0; at < piece.bytes; at += page) {
                const uint64_t start = piece.start + at;
                char* const content = piece.to + at;
                if (is_zero_page(content, page)) {
                    append(batch.zero, start, start + page);
                    continue;
                }
                append(runs, start, start + page);
                if (!contents.empty() &&
                    static_cast<char*>(contents.back().iov_base) + contents.back().iov_len ==
                        content)
                    contents.back().iov_len += page;
                else
                    contents.push_back({content, page});
            }
    }

    Status write(size_t first, size_t count) {
        GHOST_TRY(workers_.each(count, [&](size_t i) -> Status {
            sort_out(batches_[first + i]);
            return {};
        }));
        std::vector<PagesChunk> chunks;
        for (size_t i = first; i < first + count; i++) {
            auto& batch = batches_[i];
            auto& zero = zero_[batch.chunk.inner_pid];
            zero.insert(zero.end(), batch.zero.begin(), batch.zero.end());
            writer_.count_zero(bytes_of(batch.zero));
            done_ += batch.bytes;
            if (!batch.chunk.runs.empty()) chunks.push_back(std::move(batch.chunk));
            batch = {};
        }
        GHOST_TRY(writer_.pages(chunks, [this](size_t number, const auto& work) {
            return workers_.each(number, work);
        }));
        if (what_.progress && monotonic_us() - told_ > progress_us) {
            what_.progress(done_, total_);
            told_ = monotonic_us();
        }
        return {};
    }

    const PageWriting& what_;
    GhostWriter& writer_;
    Workers& workers_;
    std::vector<Batch> batches_;
    std::map<int, PageRuns> zero_;
    uint64_t total_ = 0, done_ = 0;
    int64_t told_ = 0;
};

}  // namespace

uint64_t bytes_to_write(const PageWriting& what) {
    uint64_t sum = 0;
    for (const auto& task : what.wanted) {
        const auto found = what.copy->processes().find(task.inner_pid);
        if (found == what.copy->processes().end()) continue;
        auto ranges = task.ranges;
        make_set(ranges);
        sum += bytes_of(intersect(found->second.store.pages(), ranges));
    }
    return sum;
}

Status write_pages(const PageWriting& what, GhostWriter& writer, Workers& workers) {
    return PageWriter(what, writer, workers).run();
}

}  // namespace ghost::core
