// SPDX-License-Identifier: BSD-3-Clause
// Which pages of a process are there, and which were written since they were last protected:
// PAGEMAP_SCAN (Documentation/admin-guide/mm/pagemap.rst of the kernel, from 6.7 on), and on older
// kernels the entries of /proc/PID/pagemap, which tell the first but not the second.
#pragma once

#include <cstdint>
#include <functional>
#include <sys/types.h>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/memory/page_set.hpp"

namespace ghost::core {

struct MemoryMap {
    PageRuns ours;    // private anonymous memory, of any protection: what a ghost's pages are from
    PageRuns others;  // what else is mapped, but by the kernel itself; what lies between, up to
                      // 2 MiB, may be in it
};
// As it is now. Sorted. not_found if the process is gone.
Result<MemoryMap> memory_map(pid_t pid);
// The same of a list that somebody has read already, as /proc/PID/maps gave it.
MemoryMap memory_map_in(std::string_view maps);
Result<PageRuns> private_memory(pid_t pid);  // only that

// Belongs to the address space the process had when it was opened: after an exec everything is
// not_found. Any thread.
class PageScan {
  public:
    enum class Protection { asynchronous, notifying };  // of userfaultfd(2)
    // How the kernel is asked. By entries: 8 bytes are read for each page of an area, also where
    // nothing is (1 TiB: 2 GiB); zero, guard and huge are never told; asynchronous protection and
    // whatever protects does not exist.
    enum class Way { scan, entries };
    // By entries where the kernel has no PAGEMAP_SCAN.
    static Way way_here();
    // `protection`: what the memory is registered for. Of one that notifies whether it is
    // registered cannot be told here. not_found: it has no memory any more.
    static Result<PageScan> open(pid_t pid, Protection protection = Protection::asynchronous);
    static Result<PageScan> open(pid_t pid, Protection protection, Way way);

    struct Found {
        uint64_t start = 0, end = 0;
        bool zero = false;    // never written: the kernel's own page of zeros
        bool marked = false;  // protect_all(): had a mark of protection before
        bool guard = false;   // not there: whoever touches it gets a SIGSEGV (MADV_GUARD_INSTALL)
        bool huge = false;    // in a huge page, which is in one piece
    };

    // Every page of the area that is there, and guard pages where this kernel tells them (6.16).
    // Areas may have changed meanwhile: what is not mapped is not there.
    Status present(const PageRun& area, std::vector<Found>& out) const;

    // Of a private mapping of a file: the pages that are the process's own copies.
    Status copied(const PageRun& area, std::vector<Found>& out) const;

    // The following two return false, and what they have found is of no use, if a part of the area
    // is not registered with a userfaultfd for asynchronous protection, where that is asked for.

    // Every page that may have been written: those that are not protected, where there is a page
    // table at all. Also names pages that are not there. By far the fastest: 0.2 ms per GiB.
    Result<bool> maybe_written(const PageRun& area, PageRuns& out) const;
    // Of those, the ones that are there. Guard pages always, as long as only the following two
    // protect.
    Result<bool> written(const PageRun& area, std::vector<Found>& out) const;
    // The same, and protects them in the same moment; passes over parts that are not registered.
    Status written_and_protect(const PageRun& area, std::vector<Found>& out) const;

    // Every page of an area that has just been registered, and protects them. Those that were
    // marked as protected before are told so and left as they are: a write may not take such a mark
    // away.
    Status protect_all(const PageRun& area, std::vector<Found>& out) const;

    // Guard pages; none on a kernel that has no word for them. Walks all page tables: 2 ms per GiB.
    Status guards(const PageRun& area, PageRuns& out) const;

    // What lies in huge pages; runs may touch. Walks all page tables.
    Status huge(const PageRun& area, PageRuns& out) const;

    // Of the pieces_of() the area those in which there is a page, or a guard page. All of them if
    // the area is not large, or at any failure. Costs nothing for memory that was never touched.
    PageRuns populated(const PageRun& area, uint64_t bytes) const;

    // Whether this one page is there. Says no at any failure.
    bool is_present(uint64_t page) const;
    // Of these pages, in any order, the numbers of those that may not be there, in order: none that
    // is left out is missing. In one call, for a tenth of what asking for each takes. Pages of
    // zeros and swapped ones are always among them, and all are where the kernel has no word for it
    // (move_pages(2), which says on what node a page is).
    std::vector<size_t> perhaps_missing(std::vector<uint64_t> pages) const;

  private:
    struct Query;
    using EntryTaker = std::function<bool(uint64_t page, uint64_t categories)>;
    PageScan(pid_t pid, Fd pagemap, uint64_t check, Way way)
        : pid_(pid), pagemap_(std::move(pagemap)), check_(check), way_(way) {}
    Result<bool> each_entry(const PageRun& area, const EntryTaker& take) const;
    Result<bool> run_entries(const Query& query, const PageRun& area,
                             std::vector<Found>& out) const;
    uint64_t next_page(uint64_t at, uint64_t limit) const;
    Result<bool> run(const Query& query, const PageRun& area, std::vector<Found>& out) const;

    pid_t pid_;
    Fd pagemap_;
    uint64_t check_;  // flag
    Way way_;
};

}  // namespace ghost::core
