// SPDX-License-Identifier: BSD-3-Clause
// Transparent huge pages (Documentation/admin-guide/mm/transhuge.rst of the kernel): which memory
// of a process lies in them, and making them again where tracking or a move has left small ones.
//
// A page that is written while its writes are tracked is taken out of its huge page, and what is
// restored comes page by page. A program that had huge pages would be slower ever after: khugepaged
// looks at some 1.6 MiB/s, and not at all where the policy is "madvise" and nobody asked.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/memory/page_set.hpp"

namespace ghost::core {

// By inner pid: memory in huge pages, whole ones only.
using HugeMemory = std::map<int, PageRuns>;

// What of a set of pages are whole huge pages.
PageRuns whole_huge_pages(const PageRuns& pages);

// The private memory of a process that lies in huge pages now; it may run. Walks its page tables:
// some 2 ms per GiB of small pages. not_found if the process is gone.
Result<PageRuns> huge_memory(pid_t pid);

// As a file of a skeleton beside criu's, see docs/IMAGE_FORMAT.md.
inline constexpr const char* huge_memory_file = "ghost-huge-memory.json";
std::string encode(const HugeMemory& memory);
Result<HugeMemory> decode_huge_memory(std::string_view text);  // corrupt

// Makes huge pages again, by MADV_COLLAPSE, which keeps the contents, works also where the kernel
// makes none by itself, and changes nothing where they are still there; not where the machine's
// policy is "never", or the program has said that it wants none. An improvement only: what cannot
// be done is left. One thread.
class HugePages {
  public:
    HugePages() = default;
    HugePages(const HugePages&) = delete;
    HugePages& operator=(const HugePages&) = delete;
    ~HugePages() = default;  // ends soon: what is not done then is left

    // Memory of a process that is there; what of it no longer is does no harm. Not after start().
    void add(pid_t pid, PageRuns memory);
    bool empty() const { return processes_.empty(); }

    // In a thread of its own, which takes some 0.6 s per GiB that lies in small pages; a fault of
    // the process may wait for some ms meanwhile. Nothing happens the second time.
    void start();
    void wait();  // until that is through

  private:
    struct Process {
        Fd pidfd;
        PageRuns memory;
    };
    std::vector<Process> processes_;
    std::jthread thread_;
};

}  // namespace ghost::core
