#include "ghost-core/mechanism/page_writer.hpp"

#include <algorithm>
#include <optional>
#include <thread>

#include "base/clock.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

// The table of runs takes room in the chunk: as many runs as every other page being zero makes.
constexpr uint64_t batch_bytes = chunk_limit - 4096;
constexpr size_t batches_at_once = 16;
constexpr int64_t progress_us = 5000;

struct Batch {
    int inner_pid = 0;
    std::vector<PagePiece> pieces;
    uint64_t bytes = 0;
    // Made from these:
    std::optional<SealedPages> sealed;  // none: all zeros
    PageRuns zero;
    uint64_t zero_bytes = 0;
};

class PageWriter {
  public:
    PageWriter(const PageWriting& what, GhostWriter& writer, Workers& workers)
        : what_(what), writer_(writer), workers_(workers) {}

    Status run() {
        for (const auto& task : what_.wanted) GHOST_TRY(plan(task));
        sequence_ = writer_.sequence();
        // While one lot is written, the next one is made ready.
        size_t first = 0;
        std::vector<Batch*> ready;
        GHOST_TRY(prepare(first, ready));
        while (!ready.empty()) {
            first += ready.size();
            std::vector<Batch*> next;
            Status made;
            std::thread ahead([&] { made = prepare(first, next); });
            auto written = write(ready);
            ahead.join();
            GHOST_TRY(written);
            GHOST_TRY(made);
            ready = std::move(next);
        }
        if (what_.differences)
            for (auto& [inner, runs] : zero_) {
                make_set(runs);
                GHOST_TRY(writer_.zero(inner, runs));
            }
        return {};
    }

  private:
    Status plan(const TaskPages& task) {
        const auto found = what_.copy->processes().find(task.inner_pid);
        if (found == what_.copy->processes().end())
            return make_error(Code::internal, "write pages: no copy of process",
                              std::to_string(task.inner_pid));
        const auto& copy = found->second;
        auto ranges = task.ranges;
        make_set(ranges);
        if (what_.differences) {
            GHOST_TRY(writer_.present(task.inner_pid, intersect(copy.known, ranges)));
            zero_[task.inner_pid] = intersect(copy.zero, ranges);
        }
        std::vector<PagePiece> pieces;
        copy.store.locate(intersect(copy.store.pages(), ranges), pieces);
        split(task.inner_pid, pieces);
        return {};
    }

    void split(int inner_pid, const std::vector<PagePiece>& pieces) {
        const uint64_t page = this_page_size();
        const uint64_t most = batch_bytes / (page + sizeof(PageRun)) * page;
        bool fresh = true;
        for (auto piece : pieces)
            while (piece.bytes > 0) {
                if (fresh || batches_.back().bytes == most) {
                    batches_.emplace_back();
                    batches_.back().inner_pid = inner_pid;
                    fresh = false;
                }
                auto& batch = batches_.back();
                const uint64_t part = std::min(piece.bytes, most - batch.bytes);
                batch.pieces.push_back({piece.start, part, piece.to});
                batch.bytes += part;
                total_ += part;
                piece = {piece.start + part, piece.bytes - part, piece.to + part};
            }
    }

    // Takes the pages apart into those with content and zeros, and seals the chunk as if every one
    // before had content.
    static void make(Batch& batch, uint64_t sequence) {
        const uint64_t page = this_page_size();
        PageRuns runs;
        std::vector<iovec> contents;
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
        batch.zero_bytes = bytes_of(batch.zero);
        if (runs.empty()) return;
        batch.sealed =
            GhostWriter::seal(sequence, batch.inner_pid, std::move(runs), std::move(contents));
    }

    Status prepare(size_t first, std::vector<Batch*>& out) {
        const size_t count = std::min(batches_at_once, batches_.size() - first);
        for (size_t i = 0; i < count; i++) out.push_back(&batches_[first + i]);
        const uint64_t sequence = sequence_;
        auto status = workers_.each(count, [&](size_t i) -> Status {
            make(*out[i], sequence + i);
            return {};
        });
        uint64_t next = sequence;
        for (auto* batch : out) {
            if (!batch->sealed) continue;
            if (batch->sealed->header.sequence != next) batch->sealed->seal(next);
            next++;
        }
        sequence_ = next;
        return status;
    }

    Status write(const std::vector<Batch*>& batches) {
        for (auto* batch : batches) {
            if (batch->sealed) GHOST_TRY(writer_.pages(*batch->sealed));
            writer_.count_zero(batch->zero_bytes);
            auto& zero = zero_[batch->inner_pid];
            zero.insert(zero.end(), batch->zero.begin(), batch->zero.end());
            done_ += batch->bytes;
            *batch = {};
            if (what_.progress && monotonic_us() - told_ > progress_us) {
                what_.progress(done_, total_);
                told_ = monotonic_us();
            }
        }
        return {};
    }

    const PageWriting& what_;
    GhostWriter& writer_;
    Workers& workers_;
    std::vector<Batch> batches_;
    std::map<int, PageRuns> zero_;
    uint64_t sequence_ = 0;  // of the next chunk to be sealed
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
