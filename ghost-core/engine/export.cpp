// SPDX-License-Identifier: BSD-3-Clause
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/memory/buffers.hpp"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/memory/queue.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/realtime_priority.hpp"

namespace ghost::core {
namespace {

// Enough for one to be read, one to be sent and some to even out; few, so that they stay in cache.
constexpr size_t export_buffers = 6;
constexpr int64_t progress_us = 5000;

// Reads pages in a thread of its own while the caller's thread sends what has been read.
class PagePump {
  public:
    PagePump(PageSource& source, BufferPool& pool)
        : source_(source), pool_(pool), reader_([this] { read(); }) {}

    ~PagePump() {
        pool_.close();
        ready_.close();
        reader_.join();
    }

    // Calls `send` with every batch; returns the first failure of either side.
    template <typename Send>
    Status run(Send&& send) {
        while (auto batch = ready_.pop()) {
            auto sent = send(*batch);
            pool_.give(batch->buffer);
            if (!sent.ok()) return sent;
        }
        std::lock_guard lock(mutex_);
        if (failure_) return *failure_;
        return {};
    }

  private:
    void read() {
        while (char* buffer = pool_.take()) {
            PageBatch batch;
            batch.buffer = buffer;
            auto more = source_.next(batch);
            if (!more) {
                std::lock_guard lock(mutex_);
                failure_ = more.error();
            }
            if (!more || !*more) break;
            if (!ready_.push(std::move(batch))) return;
        }
        ready_.finish();
    }

    PageSource& source_;
    BufferPool& pool_;
    Queue<PageBatch> ready_;
    std::mutex mutex_;
    std::optional<Error> failure_;
    std::thread reader_;
};

// What of the tree's memory is to be in huge pages again; the tree still runs, so it is a wish.
std::string huge_memory_of(const ExportRequest& request) {
    HugeMemory out = request.huge;
    if (auto tasks = list_tree(request.root); tasks.ok())
        for (const auto& task : *tasks)
            if (auto memory = huge_memory(task.pid); memory.ok() && !memory->empty()) {
                auto& all = out[task.inner];
                all = unite(all, *memory);
            }
    return out.empty() ? "" : encode(out);
}

Status send_pages(DumpResult& dump, GhostWriter& writer, BufferPool& pool,
                  const Progress& progress) {
    ProcessPages source(ends_first(dump.pages));
    const uint64_t total = source.total();
    GHOST_TRY(writer.skeleton_end(total));
    uint64_t done = 0;
    int64_t told = monotonic_us();
    PagePump pump(source, pool);
    return pump.run([&](const PageBatch& batch) -> Status {
        writer.count_zero(batch.zero_bytes);
        if (!batch.runs.empty())
            GHOST_TRY(writer.pages(batch.inner_pid, batch.runs, batch.contents));
        done += batch.bytes + batch.zero_bytes;
        if (progress && monotonic_us() - told > progress_us) {
            progress(done, total);
            told = monotonic_us();
        }
        return {};
    });
}

// After the freeze: a failure here lets the tree go again.
Status send_frozen(DumpResult& dump, GhostWriter& writer, BufferPool& pool,
                   const ExportRequest& request, const std::string& huge_memory, Resource& out) {
    int number = dump.files;
    if (!huge_memory.empty())
        GHOST_TRY(writer.skeleton_file(number++, huge_memory_file, huge_memory));
    if (request.while_stopped) {
        auto more = request.while_stopped();
        GHOST_TRY(more);
        for (const auto& [name, content] : *more)
            GHOST_TRY(writer.skeleton_file(number++, name, content));
    }
    GHOST_TRY(send_pages(dump, writer, pool, request.progress));
    GHOST_TRY(writer.end());
    return out.finalize();
}

}  // namespace

Result<TreeDump> prepare_export(const ExportRequest& request) {
    DumpRequest what;
    what.root = request.root;
    what.externals = request.externals;
    what.criu = request.criu;
    what.nested = request.nested;
    return TreeDump::prepare(what);
}

Result<ExportStats> export_tree(const ExportRequest& request, Resource& out,
                                std::optional<TreeDump> ahead) {
    const RealtimePriority urgent;
    ExportStats stats;
    const int64_t begin = monotonic_us();
    auto pool = BufferPool::make(export_buffers);
    if (!pool) return pool.error();
    GhostWriter writer(out);
    GHOST_TRY(
        writer.head(request.facts.empty() ? host_facts() : request.facts, request.metadata.dump()));
    const std::string huge_memory = huge_memory_of(request);
    const int64_t freeze = monotonic_us();
    if (!ahead) {
        auto prepared = prepare_export(request);
        if (!prepared) return prepared.error();
        ahead.emplace(std::move(*prepared));
    }
    auto dump = ahead->run(writer);
    if (!dump) return dump.error();
    const int64_t skeleton = monotonic_us();
    if (auto sent = send_frozen(*dump, writer, *pool, request, huge_memory, out); !sent.ok()) {
        if (auto resumed = resume_tree(request.root); !resumed.ok())
            log::warning("after a failed export: {}", resumed.error().message());
        return sent.error();
    }
    const int64_t end = monotonic_us();
    stats.skeleton_bytes = dump->skeleton_bytes;
    stats.page_bytes = writer.contents().page_bytes;
    stats.zero_bytes = writer.contents().zero_bytes;
    stats.frozen_us = end - freeze;
    stats.skeleton_us = skeleton - freeze;
    stats.pages_us = end - skeleton;
    stats.total_us = end - begin;
    stats.digest = writer.contents().digest;
    return stats;
}

}  // namespace ghost::core
