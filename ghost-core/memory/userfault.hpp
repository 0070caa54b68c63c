// SPDX-License-Identifier: BSD-3-Clause
// Fills the pages of processes that are being restored, through their userfaultfds
// (userfaultfd(2)). Memory without a page stops its reader until the page is put there.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "base/fd.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/pages.hpp"

namespace ghost::core {

// Whether processes here may run before all of their pages have come: they need a userfaultfd that
// serves faults of the kernel too, and is told when they fork (userfaultfd(2)). refused, with what
// to do instead.
Status check_pages_may_follow();

// What the restorer needs of whoever answers the faults of the processes it makes.
class FaultServer {
  public:
    virtual ~FaultServer() = default;
    // The userfaultfd of the process, non-blocking, events enabled.
    virtual void add(int inner_pid, Fd userfault) = 0;
    // The descriptors to poll; handle() one that is readable.
    virtual std::vector<std::pair<int, int>> descriptors() = 0;  // {inner pid, descriptor}
    // Reads its events. Error: the restore fails.
    virtual Status handle(int inner_pid) = 0;
    // Every process has been added and has registered its memory: a page that has no place now has
    // none at all.
    virtual void all_there() = 0;
    // The tree is made and is frozen.
    virtual void release() = 0;
    // The same, but the userfaultfds go on, for later: the areas of memory, by process, are no
    // longer registered with them. A process that is left out has none any more.
    virtual std::map<int, Fd> hand_over(const std::map<int, PageRuns>& areas) = 0;
    virtual uint64_t filled() const = 0;  // bytes of contents put so far
};

// put() is for any number of threads, everything else for another one.
class FaultFiller : public PageSink, public FaultServer {
  public:
    void add(int inner_pid, Fd userfault) override;
    std::vector<std::pair<int, int>> descriptors() override;
    // Reads its events: faults are remembered (their page is on the way), removed ranges are no
    // longer filled. Error: something happened that a tree that does not run cannot do.
    Status handle(int inner_pid) override;

    Result<uint64_t> put(int inner_pid, std::span<const PageRun> runs, const char* contents,
                         uint64_t done) override;

    void all_there() override;
    // Every page has been put: what is still missing is zero. Faults are answered so from now on.
    Status complete();
    // Gives up: a put() that goes on fails. Any thread.
    void stop();
    // Closes the userfaultfds: the processes are on their own.
    void release() override;
    std::map<int, Fd> hand_over(const std::map<int, PageRuns>& areas) override;

    uint64_t filled() const override { return filled_; }

  private:
    struct Process {
        Fd userfault;
        std::set<uint64_t> faults;     // addresses of pages somebody waits for
        std::vector<PageRun> removed;  // no longer there
    };

    Result<uint64_t> copy(Process& process, uint64_t to, const char* from, uint64_t bytes);
    Status zero(Process& process, uint64_t page);
    bool was_removed(const Process& process, uint64_t page);
    std::mutex mutex_;
    std::map<int, Process> processes_;
    std::atomic<uint64_t> filled_ = 0;
    std::atomic<bool> all_there_ = false;
    std::atomic<bool> complete_ = false;
    std::atomic<bool> stopped_ = false;
};

}  // namespace ghost::core
