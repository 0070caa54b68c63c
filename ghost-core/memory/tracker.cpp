// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/tracker.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <mutex>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ghost-core/format/host.hpp"
#include "ghost-core/memory/injection.hpp"

namespace ghost::core {
namespace {

constexpr int64_t attach_limit_us = 500000;
constexpr uint64_t asynchronous = uint64_t{1} << 15;  // UFFD_FEATURE_WP_ASYNC, Linux 6.7
constexpr uint64_t table_bytes = 2 << 20;             // memory under one page table, x86-64
constexpr uint64_t part_bytes = 64 << 20;
constexpr uint64_t piece_bytes = 8 << 20;  // small enough that threads end together
constexpr uint64_t release_bytes = 16 << 20;
constexpr uint64_t clean_bytes = 8 << 20;
// Candidates with less than this between them are looked at in one go. Where they are protected too
// each call ends with a flush of other processors' translations, which costs as much as looking at
// some hundred pages.
constexpr uint64_t near_bytes = 128 << 10;
constexpr uint64_t near_bytes_protecting = 2 << 20;

PageRuns set_of(const std::vector<PageScan::Found>& found) {
    PageRuns out;
    for (const auto& run : found)
        if (!run.guard) out.push_back({run.start, run.end - run.start});
    make_set(out);
    return out;
}

// What of the pages known and not written is no longer there though no scan for written pages
// tells: a page table that has gone as a whole, by munmap or by MADV_DONTNEED of a huge page or of
// all its pages, is passed over like any hole. So one page of every 2 MiB is asked for, and if it
// is not there, all of that table: it may be the only one that has gone.
Result<PageRuns> lost_pages(const PageScan& scan, const PageRuns& clean) {
    PageRuns parts;                // none reaches over the border of a table
    std::vector<uint64_t> firsts;  // of each table
    std::vector<size_t> begins;    // where its parts begin
    for (const auto& run : clean)
        for (uint64_t at = run.start; at < run.end();) {
            if (firsts.empty() || at / table_bytes != firsts.back() / table_bytes) {
                firsts.push_back(at);
                begins.push_back(parts.size());
            }
            const uint64_t stop = std::min(at / table_bytes * table_bytes + table_bytes, run.end());
            parts.push_back({at, stop - at});
            at = stop;
        }
    begins.push_back(parts.size());
    PageRuns out;
    std::vector<PageScan::Found> found;
    for (const size_t i : scan.perhaps_missing(firsts)) {
        if (scan.is_present(firsts[i])) continue;
        const PageRuns table(parts.begin() + static_cast<std::ptrdiff_t>(begins[i]),
                             parts.begin() + static_cast<std::ptrdiff_t>(begins[i + 1]));
        found.clear();
        GHOST_TRY(scan.present({firsts[i], table.back().end() - firsts[i]}, found));
        for (const auto& run : subtract(table, set_of(found))) append(out, run.start, run.end());
    }
    return out;
}

PageRuns joined(const PageRuns& runs, uint64_t near) {
    PageRuns out;
    for (const auto& run : runs)
        if (!out.empty() && run.start - out.back().end() < near)
            out.back().bytes = run.end() - out.back().start;
        else
            out.push_back(run);
    return out;
}

// What is tried, of one process or (empty) of any.
std::string tracking(const std::string& whose) {
    return whose.empty() ? "track writes of processes" : "track writes of process";
}

Error cannot_track(const std::string& whose) {
    return make_error(Code::unsupported, tracking(whose), whose,
                      "this kernel cannot (Linux 6.7 can): use --mode stop");
}

Status begin_asynchronous(const Fd& userfault, const std::string& whose) {
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = asynchronous | UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    if (ioctl(userfault.get(), UFFDIO_API, &api) == 0) return {};
    return errno == EINVAL ? cannot_track(whose) : sys_error(tracking(whose), whose);
}

}  // namespace

// In no order: what is told twice, of an area that was scanned twice, may lie before what was last.
void add_found(const std::vector<PageScan::Found>& found, PageChanges& changes) {
    for (const auto& run : found) {
        auto& kind = run.guard ? changes.guards : run.zero ? changes.zero : changes.written;
        kind.push_back({run.start, run.end - run.start});
        if (run.huge && !run.guard && !run.zero)
            changes.huge.push_back({run.start, run.end - run.start});
    }
}

Status Tracker::check_here() {
    if (PageScan::way_here() == PageScan::Way::entries) return cannot_track({});
    const int flags = O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY;
    const Fd userfault(static_cast<int>(syscall(SYS_userfaultfd, flags)));
    if (!userfault) return sys_error(tracking({}), {}, Code::unsupported);
    return begin_asynchronous(userfault, {});
}

Result<Tracker> Tracker::attach(pid_t pid) {
    if (PageScan::way_here() == PageScan::Way::entries) return cannot_track(std::to_string(pid));
    // asynchronous protection lets nobody wait
    auto userfault = take_userfault(pid, attach_limit_us, Faults::programs);
    if (!userfault) return userfault.error();
    return adopt(pid, std::move(*userfault));
}

Result<Tracker> Tracker::adopt(pid_t pid, Fd userfault) {
    GHOST_TRY(begin_asynchronous(userfault, std::to_string(pid)));
    return Tracker(pid, std::move(userfault));
}

// False: it cannot be, now or at all; its pages are copied when the process is frozen.
bool Tracker::enlist(const PageRun& area) const {
    uffdio_register place{};
    place.range = {area.start, area.bytes};
    place.mode = UFFDIO_REGISTER_MODE_WP;
    return ioctl(userfault_.get(), UFFDIO_REGISTER, &place) == 0;
}

// Takes marks of protection away, piece by piece: whoever wants to map or unmap waits for each.
bool Tracker::clean(const PageRun& area) const {
    for (const auto& part : pieces_of(area, clean_bytes)) {
        uffdio_writeprotect piece{};
        piece.range = {part.start, part.bytes};
        while (ioctl(userfault_.get(), UFFDIO_WRITEPROTECT, &piece) != 0) {
            if (errno != EAGAIN) return false;
            sched_yield();
        }
    }
    return true;
}

// Everything that is there, protected from now on. mremap() next to an area of ours makes one of
// both and takes it from us without a word: its pages keep the mark of protection, though writes no
// longer remove it.
Status Tracker::first_look(const PageScan& scan, const PageRun& part, FoundPages& found) const {
    FoundPages all;
    GHOST_TRY(scan.protect_all(part, all));
    for (const auto& run : all) {
        if (!run.marked) {
            found.push_back(run);
            continue;
        }
        const PageRun marked{run.start, run.end - run.start};
        if (clean(marked)) {
            GHOST_TRY(scan.written_and_protect(marked, found));
            continue;
        }
        // Changed meanwhile: as if nothing had been, which removes the marks too.
        uffdio_range range{part.start, part.bytes};
        ioctl(userfault_.get(), UFFDIO_UNREGISTER, &range);
        return {};
    }
    return {};
}

// An area is registered whole or not at all, and looked at in pieces, one thread at a time each.
Status Tracker::add_pieces(const PageScan& scan, const PageRun& area,
                           std::vector<Piece>& pieces) const {
    PageRuns ignored;
    auto tracked = scan.maybe_written({area.start, this_page_size()}, ignored);
    if (!tracked) return tracked.error();
    if (!*tracked && !enlist(area)) return {};
    for (const auto& piece : scan.populated(area, piece_bytes))
        pieces.push_back({piece, !*tracked});
    return {};
}

// What is replaced meanwhile is not registered any more; the next round, or the look at the
// frozen process, will see. `dense`: of the pieces looked at so far most were written all over,
// so that looking for candidates first would only be one walk more.
Status Tracker::round_of(const PageScan& scan, const Piece& piece, std::atomic<bool>& dense,
                         FoundPages& found) const {
    if (piece.fresh) return first_look(scan, piece.area, found);
    const auto is_dense = [&](const PageRuns& runs) {
        return bytes_of(runs) > piece.area.bytes / 2;
    };
    if (dense) {
        GHOST_TRY(scan.written_and_protect(piece.area, found));
        dense = is_dense(joined(set_of(found), near_bytes_protecting));
        return {};
    }
    PageRuns candidates;
    auto tracked = scan.maybe_written(piece.area, candidates);
    if (!tracked) return tracked.error();
    if (!*tracked) return {};
    const auto runs = joined(candidates, near_bytes_protecting);
    for (const auto& run : runs) GHOST_TRY(scan.written_and_protect(run, found));
    dense = is_dense(runs);
    return {};
}

Status Tracker::round(PageChanges& changes, Workers* workers,
                      const std::function<Status()>& looked) {
    auto areas = private_memory(pid_);
    if (!areas) return areas.error();
    auto scan = PageScan::open(pid_);
    if (!scan) return scan.error();
    std::vector<Piece> pieces;
    for (const auto& area : *areas) GHOST_TRY(add_pieces(*scan, area, pieces));
    FoundPages found;
    std::mutex mutex;
    std::atomic<bool> dense = false;
    const auto look = [&](size_t i) -> Status {
        FoundPages part;
        GHOST_TRY(round_of(*scan, pieces[i], dense, part));
        {
            const std::lock_guard lock(mutex);
            found.insert(found.end(), part.begin(), part.end());
        }
        return looked ? looked() : Status();
    };
    if (workers != nullptr)
        GHOST_TRY(workers->each(pieces.size(), look));
    else
        for (size_t i = 0; i < pieces.size(); i++) GHOST_TRY(look(i));
    add_found(found, changes);
    return {};
}

Result<std::vector<Tracker::Slice>> Tracker::slices(const PageScan& scan, const PageRuns& known,
                                                    PageRuns& gone) const {
    auto areas = private_memory(pid_);
    if (!areas) return areas.error();
    return slices(scan, *areas, known, gone);
}

// What is known and lies where nothing is any more has gone without a look.
std::vector<Tracker::Slice> Tracker::slices(const PageScan& scan, const PageRuns& areas,
                                            const PageRuns& known, PageRuns& gone) {
    std::vector<Slice> out;
    PageRuns all;
    for (const auto& area : areas)
        for (const auto& part : scan.populated(area, part_bytes)) {
            append(all, part.start, part.end());
            out.push_back({part, cut(known, part.start, part.end())});
        }
    gone = unite(gone, subtract(known, all));
    return out;
}

Status Tracker::look(const PageScan& scan, const Slice& part, PageChanges& changes) {
    PageRuns candidates;
    std::vector<PageScan::Found> found;
    auto tracked = scan.maybe_written(part.area, candidates);
    if (!tracked) return tracked.error();
    if (!*tracked) {
        candidates = {part.area};
        GHOST_TRY(scan.present(part.area, found));
    } else {
        for (const auto& run : joined(candidates, near_bytes)) {
            auto done = scan.written(run, found);
            if (!done) return done.error();
        }
    }
    add_found(found, changes);
    auto lost = subtract(intersect(part.known, candidates), set_of(found));
    for (const auto& run : lost) changes.gone.push_back(run);
    auto tables = lost_pages(scan, subtract(part.known, candidates));
    if (!tables) return tables.error();
    for (const auto& run : *tables) changes.gone.push_back(run);
    return {};
}

bool Tracker::is_current() const {
    // Any address will do: the kernel looks for the address space first.
    uffdio_writeprotect piece{};
    piece.range = {part_bytes, this_page_size()};
    return ioctl(userfault_.get(), UFFDIO_WRITEPROTECT, &piece) == 0 || errno != ESRCH;
}

void Tracker::release() {
    auto areas = private_memory(pid_);
    auto scan = PageScan::open(pid_);
    if (areas && scan)
        for (const auto& area : *areas)
            for (const auto& part : scan->populated(area, release_bytes)) {
                uffdio_writeprotect piece{};
                piece.range = {part.start, part.bytes};
                while (ioctl(userfault_.get(), UFFDIO_WRITEPROTECT, &piece) != 0 && errno == EAGAIN)
                    sched_yield();
            }
    userfault_.reset();
}

Status look_at_all(pid_t pid, const PageScan& scan, PageChanges& changes) {
    auto areas = private_memory(pid);
    if (!areas) return areas.error();
    std::vector<PageScan::Found> found;
    for (const auto& area : *areas) GHOST_TRY(scan.present(area, found));
    add_found(found, changes);
    return {};
}

}  // namespace ghost::core
