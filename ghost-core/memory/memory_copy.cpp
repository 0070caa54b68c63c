// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/memory_copy.hpp"

#include <algorithm>
#include <mutex>
#include <set>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/memory/injection.hpp"

namespace ghost::core {
namespace {

constexpr uint64_t batch_bytes = 1 << 20;
constexpr size_t batch_pieces = 256;
constexpr uint64_t spare_bytes = 32 << 20;  // pages new since the last round, at the freeze
constexpr int64_t attach_limit_us = 500000;
// Runs with less than this between them are protected in one go.
constexpr uint64_t near_bytes = 128 << 10;

Result<MemoryMap> map_of(pid_t pid, const MemoryCopy::Maps& maps) {
    const auto* known = maps ? maps(pid) : nullptr;
    return known != nullptr ? memory_map_in(*known) : memory_map(pid);
}

}  // namespace

void MemoryCopy::begin(bool since_last, Space* into) {
    deferred_.reset();
    own_.reset();
    space_ = into != nullptr ? into : &own_;
    for (auto process = processes_.begin(); process != processes_.end();) {
        auto& [inner, copy] = *process;
        copy.store.clear();
        copy.zero.clear();
        copy.deferred = false;
        const bool kept = since_last && copy.tracker && copy.tracker->is_current();
        if (!kept && copy.tracker) copy.tracker->release();
        process = kept ? std::next(process) : processes_.erase(process);
    }
}

// Whoever waits hears that it goes on, and may call it off.
Status MemoryCopy::step(uint64_t bytes) const {
    if (!watch_ || watch_(bytes)) return {};
    return make_error(Code::refused, "copy memory", {}, "it was called off");
}

Status MemoryCopy::track(std::span<const ProcessName> processes) {
    for (const auto& name : processes) {
        auto& copy = processes_[name.inner_pid];
        const bool tracked = copy.tracker && copy.tracker->is_current();
        if (copy.pid == name.pid && (tracked || copy.untracked)) continue;
        copy = {};
        copy.pid = name.pid;
        auto tracker = Tracker::attach(name.pid);
        if (tracker)
            copy.tracker = std::move(*tracker);
        else
            copy.untracked = tracker.error();
        GHOST_TRY(step(0));
    }
    return {};
}

Status MemoryCopy::take_in(ProcessCopy& process, PageChanges& changes) {
    make_set(changes.written);
    return take_in(process, changes, changes.written);
}

// The changes are noted, and what has to be read is put down in batches.
Status MemoryCopy::take_in(ProcessCopy& process, PageChanges& changes, const PageRuns& now) {
    make_set(changes.written);
    make_set(changes.zero);
    make_set(changes.gone);
    if (!changes.huge.empty()) {
        make_set(changes.huge);
        auto& huge = huge_[process.pid];
        huge = unite(huge, whole_huge_pages(changes.huge));
    }
    process.known =
        unite(subtract(process.known, changes.gone), unite(changes.written, changes.zero));
    process.zero =
        unite(subtract(process.zero, unite(changes.gone, changes.written)), changes.zero);
    process.store.drop(unite(changes.gone, changes.zero));
    GHOST_TRY(process.store.reserve(changes.written, *space_));
    std::vector<PagePiece> pieces;
    process.store.locate(now, pieces);
    uint64_t room = 0;
    for (auto piece : pieces)
        while (piece.bytes > 0) {
            if (room == 0 || batches_.back().pieces.size() == batch_pieces) {
                batches_.push_back({process.pid, {}});
                room = batch_bytes;
            }
            const uint64_t part = std::min(room, piece.bytes);
            batches_.back().pieces.push_back({piece.start, part, piece.to});
            piece = {piece.start + part, piece.bytes - part, piece.to + part};
            room -= part;
            batched_ += part;
        }
    return {};
}

Status MemoryCopy::read_changes(Vanished vanished, Workers& workers) {
    auto status = workers.each(batches_.size(), [&](size_t i) -> Status {
        GHOST_TRY(read_pages(batches_[i].pid, batches_[i].pieces, vanished));
        uint64_t bytes = 0;
        for (const auto& piece : batches_[i].pieces) bytes += piece.bytes;
        return step(bytes);
    });
    batches_.clear();
    batched_ = 0;
    return status;
}

Result<MemoryCopy::Round> MemoryCopy::round() {
    Round out;
    const int64_t begin = monotonic_us();
    for (auto& [inner, process] : processes_) {
        if (!process.tracker) continue;
        PageChanges changes;
        const auto looked = [this] { return step(0); };
        auto status = process.tracker->round(changes, &workers_, looked);
        if (!status.ok() && status.error().code == Code::not_found) {
            // It has ended, or has another address space since an exec.
            const ProcessName name{inner, process.pid};
            GHOST_TRY(track({&name, 1}));
            continue;
        }
        GHOST_TRY(status);
        GHOST_TRY(take_in(process, changes));
    }
    out.scan_us = monotonic_us() - begin;
    out.bytes = batched_;
    GHOST_TRY(read_changes(Vanished::is_left, workers_));
    out.us = monotonic_us() - begin;
    return out;
}

// What is different in every process, looked at by all threads.
Status MemoryCopy::look(std::span<const ProcessName> processes, Workers& urgent, const Maps& maps) {
    struct Work {
        ProcessCopy* process = nullptr;
        const PageScan* scan = nullptr;
        std::optional<Tracker::Slice> part;  // or
        PageRun other;                       // memory that is not tracked, for guard pages
    };
    struct Armed {
        int inner = 0;
        ProcessCopy* process = nullptr;
        PageRuns areas;  // lines of its memory map that are protected
        PageRuns now;    // what is not, or was not
    };
    std::vector<Work> works;
    std::vector<Armed> deferred;
    std::map<ProcessCopy*, PageChanges> changes;
    std::vector<std::unique_ptr<PageScan>> scans;
    for (const auto& name : processes) {
        auto& process = processes_[name.inner_pid];
        if (process.pid != name.pid) process = {};
        process.pid = name.pid;
        process.guards.clear();
        auto& of = changes[&process];
        auto scan = PageScan::open(name.pid, process.deferred ? PageScan::Protection::notifying
                                                              : PageScan::Protection::asynchronous);
        // One that is just ending has no memory any more; nothing freezes it.
        const bool ended = !scan.ok() && scan.error().code == Code::not_found;
        if (!scan && !ended) return scan.error();
        if ((!process.tracker && !process.deferred) || ended) {
            process.deferred = false;
            process.known.clear();
            process.zero.clear();
            process.store.clear();
        }
        if (ended) continue;
        scans.push_back(std::make_unique<PageScan>(std::move(*scan)));
        auto map = map_of(name.pid, maps);
        if (!map) return map.error();
        for (const auto& area : map->others)
            works.push_back({&process, scans.back().get(), {}, area});
        if (process.deferred) {
            Armed one{name.inner_pid, &process, {}, {}};
            for (const auto& area : map->ours)
                if (deferred_->is_armed(name.inner_pid, area))
                    one.areas.push_back(area);
                else
                    one.now.push_back(area);
            for (auto& part : Tracker::slices(*scans.back(), one.areas, process.known, of.gone))
                works.push_back({&process, scans.back().get(), std::move(part), {}});
            deferred.push_back(std::move(one));
            continue;
        }
        if (!process.tracker) {
            GHOST_TRY(look_at_all(name.pid, *scans.back(), of));
            continue;
        }
        for (auto& part : Tracker::slices(*scans.back(), map->ours, process.known, of.gone))
            works.push_back({&process, scans.back().get(), std::move(part), {}});
    }
    std::mutex mutex;
    GHOST_TRY(urgent.each(works.size(), [&](size_t i) -> Status {
        const auto& [process, scan, part, other] = works[i];
        PageChanges found;
        GHOST_TRY(part ? Tracker::look(*scan, *part, found) : scan->guards(other, found.guards));
        std::lock_guard lock(mutex);
        auto& all = changes[process];
        all.written.insert(all.written.end(), found.written.begin(), found.written.end());
        all.zero.insert(all.zero.end(), found.zero.begin(), found.zero.end());
        all.gone.insert(all.gone.end(), found.gone.begin(), found.gone.end());
        all.guards.insert(all.guards.end(), found.guards.begin(), found.guards.end());
        return {};
    }));
    for (auto& one : deferred)
        GHOST_TRY(protect(one.inner, one.areas, changes[one.process], one.now, urgent));
    for (auto& [process, found] : changes) {
        make_set(found.guards);
        process->guards = std::move(found.guards);
        if (!process->deferred) GHOST_TRY(take_in(*process, found));
    }
    for (auto& one : deferred) {
        auto& found = changes[one.process];
        make_set(found.written);
        const auto now = intersect(found.written, one.now);
        GHOST_TRY(take_in(*one.process, found, now));
        deferred_->save(one.inner, subtract(subtract(one.process->known, one.process->zero), now),
                        one.areas, one.process->store);
    }
    return {};
}

// Everything that was written is protected, and every area of these is tried: one that has become
// another since it was armed can have pages that look protected. What of `areas` is not the same is
// taken out, and put down in `now`; all that is there in `now` is told as written.
Status MemoryCopy::protect(int inner_pid, PageRuns& areas, PageChanges& changes, PageRuns& now,
                           Workers& urgent) {
    make_set(changes.written);
    std::vector<char> same(areas.size());
    GHOST_TRY(urgent.each(areas.size(), [&](size_t i) -> Status {
        const auto& area = areas[i];
        PageRuns runs{{area.start, this_page_size()}};
        for (const auto& run : cut(changes.written, area.start, area.end()))
            if (run.start - runs.back().end() < near_bytes || run.start < runs.back().end())
                runs.back().bytes = run.end() - runs.back().start;
            else
                runs.push_back(run);
        same[i] = std::all_of(runs.begin(), runs.end(), [&](const PageRun& run) {
            return deferred_->protect(inner_pid, run);
        });
        return {};
    }));
    PageRuns kept;
    for (size_t i = 0; i < areas.size(); i++) (same[i] ? kept : now).push_back(areas[i]);
    areas = std::move(kept);
    std::vector<PageScan::Found> found;
    for (const auto& area : now) {
        GHOST_TRY(deferred_->scan(inner_pid).present(area, found));
        changes.gone.push_back(area);
    }
    make_set(now);
    add_found(found, changes);
    return {};
}

Result<MemoryCopy::Round> MemoryCopy::finish(std::span<const ProcessName> processes,
                                             Workers& urgent, const Maps& maps) {
    Round out;
    const int64_t begin = monotonic_us();
    std::set<int> there;
    for (const auto& name : processes) there.insert(name.inner_pid);
    std::erase_if(processes_, [&](const auto& entry) { return !there.count(entry.first); });
    std::erase_if(huge_, [&](const auto& entry) {
        return std::none_of(processes.begin(), processes.end(),
                            [&](const ProcessName& name) { return name.pid == entry.first; });
    });
    // In the failure of anything below nobody may be left waiting.
    struct Held {
        CopyBeforeWrite* deferred;
        ~Held() {
            if (deferred != nullptr) deferred->give_up();
        }
    } held{deferred_.get()};
    if (deferred_) deferred_->hold();
    GHOST_TRY(look(processes, urgent, maps));
    out.scan_us = monotonic_us() - begin;
    out.bytes = batched_;
    GHOST_TRY(read_changes(Vanished::is_error, urgent));
    if (deferred_) deferred_->go();
    held.deferred = nullptr;
    out.us = monotonic_us() - begin;
    return out;
}

Status MemoryCopy::prepare() {
    batches_.reserve(1024);
    return space_->warm(spare_bytes);
}

uint64_t MemoryCopy::bytes() const {
    uint64_t sum = 0;
    for (const auto& [inner, process] : processes_) sum += process.store.bytes();
    return sum;
}

HugeMemory MemoryCopy::huge() const {
    HugeMemory out;
    for (const auto& [inner, process] : processes_)
        if (const auto found = huge_.find(process.pid); found != huge_.end())
            out[inner] = found->second;
    return out;
}

void MemoryCopy::name_huge(HugePages& out) const {
    for (const auto& [inner, process] : processes_)
        if (const auto found = huge_.find(process.pid); found != huge_.end())
            out.add(process.pid, found->second);
}

void MemoryCopy::leave() {
    if (deferred_) deferred_->give_up();
    for (auto& [inner, process] : processes_) process.store.clear();
    space_ = &own_;
}

Status MemoryCopy::defer() {
    std::map<int, Fd> userfaults;
    for (const auto& [inner, process] : processes_) {
        if (!process.tracker) continue;
        auto userfault = take_userfault(process.pid, attach_limit_us, Faults::all);
        if (!userfault) return userfault.error();
        userfaults[inner] = std::move(*userfault);
    }
    if (userfaults.empty())
        return make_error(Code::unsupported, "copy memory before it is written", {},
                          "no process is tracked");
    deferred_ = std::make_unique<CopyBeforeWrite>();
    for (auto& [inner, userfault] : userfaults) {
        auto& process = processes_[inner];
        process.tracker->release();
        process.tracker.reset();
        process.known.clear();
        process.zero.clear();
        PageChanges there;
        auto armed = deferred_->arm(inner, process.pid, std::move(userfault), workers_, there);
        process.deferred = armed.ok();
        if (!armed.ok()) {
            process.untracked = armed.error();
            process.store.clear();
            continue;
        }
        make_set(there.written);
        process.store.drop(subtract(process.store.pages(), there.written));  // others keep theirs
        GHOST_TRY(take_in(process, there, {}));
    }
    return {};
}

Status MemoryCopy::complete() {
    return deferred_->copy_rest(workers_, watch_);
}

MemoryCopy::Deferred MemoryCopy::deferred() const {
    if (!deferred_) return {};
    return {deferred_->bytes(), deferred_->faulted()};
}

void MemoryCopy::release() {
    deferred_.reset();
    for (auto& [inner, process] : processes_) {
        if (process.tracker) process.tracker->release();
        process.tracker.reset();
    }
}

}  // namespace ghost::core
