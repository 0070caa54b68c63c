// SPDX-License-Identifier: BSD-3-Clause
// Which pages of a process are written, from outside and without its help.
//
// Its private anonymous memory is registered with a userfaultfd of its own in the asynchronous mode
// of write protection (UFFD_FEATURE_WP_ASYNC): the kernel itself lets a write to a protected page
// through and takes the protection away; PAGEMAP_SCAN tells which are unprotected and protects them
// again. Whole areas are never protected by UFFDIO_WRITEPROTECT: that builds page tables for memory
// that was never touched, keeps huge pages from being made there, and makes it look present.
#pragma once

#include <atomic>
#include <functional>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/memory/page_scan.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/workers.hpp"

namespace ghost::core {

// What has to be done to a copy of the memory for it to be right.
struct PageChanges {
    PageRuns written;  // to be read again
    PageRuns zero;     // there, and never written: holds only zeros
    PageRuns gone;     // of those known before: no longer there
    PageRuns guards;   // all guard pages there are; while the process runs: none
    PageRuns huge;     // of those written: what lies in huge pages
};

// Adds what a scan has found, in no order.
void add_found(const std::vector<PageScan::Found>& found, PageChanges& changes);

// One thread at a time, unless said otherwise. The process may run, stop, exec or die at any time.
class Tracker {
  public:
    // Whether the kernel lets this user track writes at all; found out without disturbing anybody.
    static Status check_here();
    // Gets a userfaultfd by calls injected into the process (injection.hpp); none stays there.
    static Result<Tracker> attach(pid_t pid);
    // With one the process itself has made (flags O_CLOEXEC | O_NONBLOCK) and handed over.
    static Result<Tracker> adopt(pid_t pid, Fd userfault);
    Tracker(Tracker&&) noexcept = default;
    Tracker& operator=(Tracker&&) noexcept = default;
    // Ends the tracking like release(), but at once: faults of the process wait for some 25 ms per
    // GiB meanwhile.
    ~Tracker() = default;

    // While the process runs: what was written since the last call, and all that is there where it
    // was not called before; tracked from now on. Pages that have gone are not told.
    // `workers`: share the work. `looked`: called after each piece, by any of the threads; an error
    // ends it.
    Status round(PageChanges& changes, Workers* workers = nullptr,
                 const std::function<Status()>& looked = {});

    // While the process is frozen: what is to be scanned, in parts, by any threads at once.
    struct Slice {
        PageRun area;
        PageRuns known;  // that part of the caller's copy
    };
    // `known`: the pages of the caller's copy. What lies outside of all parts is told in `gone`.
    // `scan` as for look().
    Result<std::vector<Slice>> slices(const PageScan& scan, const PageRuns& known,
                                      PageRuns& gone) const;
    // The same with the private memory (page_scan.hpp) known already.
    static std::vector<Slice> slices(const PageScan& scan, const PageRuns& areas,
                                     const PageRuns& known, PageRuns& gone);
    // Adds to `changes` what is different in this part. Does not protect: what is told now will be
    // told again by the next round. `scan` was opened when the process was frozen already.
    static Status look(const PageScan& scan, const Slice& part, PageChanges& changes);

    // Takes the protection away piece by piece, so that the process hardly notices. After that,
    // and after a failure in between, nothing is tracked.
    void release();

    // Whether the process still has the address space it had; after an exec it must be attached
    // again.
    bool is_current() const;

    pid_t pid() const { return pid_; }

  private:
    Tracker(pid_t pid, Fd userfault) : pid_(pid), userfault_(std::move(userfault)) {}
    using FoundPages = std::vector<PageScan::Found>;
    struct Piece {
        PageRun area;
        bool fresh = false;  // registered just now
    };
    Status add_pieces(const PageScan& scan, const PageRun& area, std::vector<Piece>& pieces) const;
    Status round_of(const PageScan& scan, const Piece& piece, std::atomic<bool>& dense,
                    FoundPages& found) const;
    Status first_look(const PageScan& scan, const PageRun& part, FoundPages& found) const;
    bool enlist(const PageRun& area) const;
    bool clean(const PageRun& area) const;

    pid_t pid_;
    Fd userfault_;
};

// The whole memory of a process that is not tracked, while it is frozen: everything there is.
Status look_at_all(pid_t pid, const PageScan& scan, PageChanges& changes);

}  // namespace ghost::core
