// SPDX-License-Identifier: BSD-3-Clause
// A copy of the memory of several processes, brought up to date round after round while they run,
// and made exact when they are frozen.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <sys/types.h>

#include "base/result.hpp"
#include "ghost-core/format/bytes.hpp"
#include "ghost-core/memory/copy_before_write.hpp"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/memory/page_store.hpp"
#include "ghost-core/memory/tracker.hpp"
#include "ghost-core/memory/workers.hpp"

namespace ghost::core {

struct ProcessName {
    int inner_pid = 0;  // names it in the ghost
    pid_t pid = 0;      // as numbered here
};

// What is known of the memory of one process. Contents are those since begin().
struct ProcessCopy {
    pid_t pid = 0;
    PageRuns known;   // every page that is there, as of the last round
    PageRuns zero;    // of those: changed to zeros
    PageRuns guards;  // guard pages (MADV_GUARD_INSTALL) of all its memory, as of finish()
    PageStore store;  // of those: changed, with their contents
    std::optional<Tracker> tracker;
    std::optional<Error> untracked;  // why there is none
    bool deferred = false;           // is copied when it runs again
};

// One thread. After any failure: release(), or begin(false) and anew.
class MemoryCopy {
  public:
    // Both outlive it. The space is its own while contents are used.
    MemoryCopy(Space& space, Workers& workers) : own_(space), workers_(workers) {}

    // Called by any of the threads after every MiB or so, with the bytes read since then, and with
    // 0 after each process that is tracked and each piece that is looked at; false makes the round
    // fail (refused). Empty: nothing.
    using Watch = std::function<bool(uint64_t bytes)>;
    void watch(Watch watch) { watch_ = std::move(watch); }

    // A new copy: contents are dropped, its own space is reset. `since_last`: of what has changed
    // since the last finish(), for those processes that have been tracked since then; everything
    // otherwise. `into`: contents of this one go there instead, where they are to stay.
    void begin(bool since_last, Space* into = nullptr);
    // Tracks those processes that are not tracked yet. One that cannot be tracked is copied whole
    // when it is frozen; `untracked` says why.
    Status track(std::span<const ProcessName> processes);

    struct Round {
        uint64_t bytes = 0;  // read
        int64_t us = 0;
        int64_t scan_us = 0;  // of it
    };
    // Reads what was written since the last round, while the processes run.
    Result<Round> round();
    // The same, for the last time: all of `processes` are frozen and nobody else is there.
    // Afterwards the copy is exact. `urgent` are the threads for this. May be called again when
    // they have run and are frozen once more. `maps`: /proc/PID/maps of those processes as somebody
    // has read it since they are frozen; null for one of which nobody has, or empty.
    using Maps = std::function<const std::string*(pid_t)>;
    Result<Round> finish(std::span<const ProcessName> processes, Workers& urgent,
                         const Maps& maps = {});
    // Gets ready for finish(): memory that is needed then is touched now.
    Status prepare();

    // Instead of further rounds, for processes that write faster than those copy: finish() reads
    // next to nothing, complete() reads everything when they run again, and what they are about to
    // write first. They are not tracked afterwards. After an error nothing has changed,
    // unless is_deferred(): then this copy comes to nothing.
    Status defer();
    bool is_deferred() const { return deferred_ != nullptr; }
    // busy: they gave memory back before it was copied; another copy, without defer(), may succeed.
    Status complete();
    // What complete() did: bytes of contents, and those of them that were about to be written.
    struct Deferred {
        uint64_t bytes = 0, faulted = 0;
    };
    Deferred deferred() const;
    // Ends what defer() began. Any thread, while nothing else is called.
    void end_deferring() { deferred_.reset(); }

    const std::map<int, ProcessCopy>& processes() const { return processes_; }
    // What of their memory was in huge pages when it was first looked at.
    HugeMemory huge() const;
    // The same, as far as it belongs to processes that are here still: for those whose tracking,
    // which takes huge pages apart, is over.
    void name_huge(HugePages& out) const;
    uint64_t bytes() const;  // of contents
    // Forgets the contents: the space they are in is somebody else's from now on.
    void leave();

    // Stops tracking, gently; the contents stay.
    void release();

  private:
    // `now`: of what is written, what is to be read in this round.
    Status take_in(ProcessCopy& process, PageChanges& changes, const PageRuns& now);
    Status take_in(ProcessCopy& process, PageChanges& changes);
    Status look(std::span<const ProcessName> processes, Workers& urgent, const Maps& maps);
    Status protect(int inner_pid, PageRuns& areas, PageChanges& changes, PageRuns& now,
                   Workers& urgent);
    Status step(uint64_t bytes) const;
    Status read_changes(Vanished vanished, Workers& workers);

    struct Batch {
        pid_t pid = 0;
        std::vector<PagePiece> pieces;
    };
    Space& own_;
    Space* space_ = &own_;
    Workers& workers_;
    std::map<int, ProcessCopy> processes_;
    std::map<pid_t, PageRuns> huge_;  // outlives a tracking: the next one finds small pages only
    Watch watch_;
    std::vector<Batch> batches_;  // to be read in this round
    uint64_t batched_ = 0;
    std::unique_ptr<CopyBeforeWrite> deferred_;
};

}  // namespace ghost::core
