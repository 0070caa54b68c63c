// SPDX-License-Identifier: BSD-3-Clause
#include <condition_variable>
#include <filesystem>
#include <future>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.hpp"
#include "base/fault.hpp"
#include "base/log.hpp"
#include "base/schema_json.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/engine/lock_handover.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/memory/buffers.hpp"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/memory/queue.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/realtime_priority.hpp"
#include "ghost-core/criu/stopped_tree.hpp"

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

Status send_pages(DumpResult& dump, GhostWriter& writer, BufferPool& pool, const Progress& progress,
                  const std::function<void()>& cut) {
    ProcessPages source(ends_first(dump.pages));
    const uint64_t total = source.total();
    GHOST_TRY(writer.skeleton_end(total));
    uint64_t done = 0;
    int64_t told = monotonic_us();
    GHOST_TRY(fault::pass(fault::Point::pages_sent_first, cut));
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

// To where it is to run, not to be kept.
bool goes_at_once(const ExportRequest& request, const Resource& out) {
    return request.ghosts == Ghosts::move && out.class_id() == ResourceClass::network;
}

// After the freeze: a failure here lets the tree go again. `given`: the locks that it has not, or
// maybe not, any more.
Status send_frozen(DumpResult& dump, GhostWriter& writer, BufferPool& pool,
                   const ExportRequest& request, const std::string& huge_memory, Resource& out,
                   std::vector<FileLock>& given) {
    int number = dump.files;
    if (!huge_memory.empty())
        GHOST_TRY(writer.skeleton_file(number++, huge_memory_file, huge_memory));
    if (request.while_stopped) {
        auto more = request.while_stopped();
        GHOST_TRY(more);
        for (const auto& [name, content] : *more)
            GHOST_TRY(writer.skeleton_file(number++, name, content));
    }
    const bool gives_locks = goes_at_once(request, out) && has_exclusive(dump.locks);
    if (gives_locks) GHOST_TRY(writer.skeleton_file(number++, std::string(lock_handover_file), ""));
    const auto cut = [&out] { out.interrupt(); };
    GHOST_TRY(send_pages(dump, writer, pool, request.progress, cut));
    GHOST_TRY(fault::pass(fault::Point::pages_sent_last, cut));
    GHOST_TRY(writer.end());
    if (gives_locks) {
        given = dump.locks;
        TreeLocks locks(request.root, dump.locks);
        GHOST_TRY(give_locks(out, locks));
    }
    return out.finalize();
}

// After a failed export.
Error go_on(pid_t root, const std::vector<FileLock>& given, Error why) {
    if (!given.empty())
        if (auto back = take_back(root, given); !back.ok())
            why.why += "; " + back.error().message();
    if (auto resumed = resume_tree(root); !resumed.ok())
        log::warning("after a failed export: {}", resumed.error().message());
    return why;
}

// The head of a ghost, and what the tree needs. One thread, but for look().
class ExportHead {
  public:
    ExportHead(const ExportRequest& request, const Resource& out, GhostWriter& writer)
        : request_(request),
          writer_(writer),
          ahead_(out.class_id() == ResourceClass::network),
          metadata_(request.metadata) {}

    // The tree runs.
    Status begin() {
        if (request_.facts) {
            before_ = *request_.facts;
        } else if (!ahead_) {
            auto facts = facts_of(request_.root, request_.ghosts);
            if (!facts) return facts.error();
            before_ = std::move(*facts);
        }
        std::error_code none;
        crius_ = std::filesystem::canonical(request_.criu.work_dir, none).string() + "/";
        if (!ahead_) return {};
        put_needs(before_.needs, metadata_);
        return write(request_.facts && !request_.is_told ? before_.host() : host_facts());
    }

    // It is stopped: beside criu, which works in the tasks meanwhile and has its log open there.
    Status look(const StoppedTree& tree) {
        if (ahead_ && !request_.facts) return {};
        auto facts = facts_of(tree.tasks(), request_.ghosts, before_);
        std::erase_if(facts.files,
                      [&](const auto& file) { return file.first.starts_with(crius_); });
        stopped_.set_value(std::move(facts));
        return {};
    }

    Result<SkeletonFiles> end() {
        if (ahead_) return changes();
        const auto facts = stopped_.get_future().get();
        put_needs(facts.needs, metadata_);
        if (request_.final_metadata) metadata_.update(request_.final_metadata());
        GHOST_TRY(write(facts.host()));
        return SkeletonFiles();
    }

  private:
    // What the head, which has gone, could not say.
    SkeletonFiles changes() {
        SkeletonFiles out;
        const auto add = [&out](std::string_view name, const Json& what) {
            out.emplace_back(name, what.dump(-1, ' ', false, Json::error_handler_t::replace));
        };
        if (request_.facts)
            if (auto changed = needs_at_stop(before_, stopped_.get_future().get()))
                add(needs_at_stop_file, schema::to_json(*changed));
        if (request_.final_metadata) add(last_metadata_file, request_.final_metadata());
        return out;
    }

    Status write(const std::string& host) {
        return writer_.head(host, metadata_.dump(-1, ' ', false, Json::error_handler_t::replace));
    }

    const ExportRequest& request_;
    GhostWriter& writer_;
    const bool ahead_;  // of the stop, so that a target gets ready
    Json metadata_;
    TreeFacts before_;
    std::string crius_;  // its folder
    std::promise<TreeFacts> stopped_;
};

}  // namespace

struct ReadyExport::Hooks {
    std::function<Status()> on_stopped;
    std::function<Result<SkeletonFiles>()> before_skeleton;
    std::function<void()> gets_on;
};

Result<ReadyExport> prepare_export(const ExportRequest& request) {
    auto hooks = std::make_shared<ReadyExport::Hooks>();
    DumpRequest what;
    what.root = request.root;
    what.externals = request.externals;
    what.criu = request.criu;
    what.nested = request.nested;
    what.on_stopped = [hooks] { return hooks->on_stopped(); };
    what.before_skeleton = [hooks] { return hooks->before_skeleton(); };
    what.gets_on = [hooks] {
        if (hooks->gets_on) hooks->gets_on();
    };
    auto dump = TreeDump::prepare(what);
    if (!dump) return dump.error();
    return ReadyExport{std::move(hooks), std::move(*dump)};
}

Result<ExportStats> export_tree(const ExportRequest& request, Resource& out,
                                std::optional<ReadyExport> ahead) {
    const RealtimePriority urgent;
    ExportStats stats;
    const int64_t begin = monotonic_us();
    auto pool = BufferPool::make(export_buffers);
    if (!pool) return pool.error();
    GhostWriter writer(out);
    ExportHead head(request, out, writer);
    GHOST_TRY(head.begin());
    const std::string huge_memory = huge_memory_of(request);
    const int64_t freeze = monotonic_us();
    if (!ahead) {
        auto prepared = prepare_export(request);
        if (!prepared) return prepared.error();
        ahead.emplace(std::move(*prepared));
    }
    *ahead->hooks = {[&] { return head.look(ahead->dump.stopped_tree()); },
                     [&] { return head.end(); }, request.gets_on};
    auto dump = ahead->dump.run(writer);
    if (!dump) return dump.error();
    const int64_t skeleton = monotonic_us();
    if (auto sent = send_frozen(*dump, writer, *pool, request, huge_memory, out, stats.given);
        !sent.ok())
        return go_on(request.root, stats.given, sent.error());
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
