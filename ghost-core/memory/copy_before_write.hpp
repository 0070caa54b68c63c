// SPDX-License-Identifier: BSD-3-Clause
// The memory of processes that go on running, as it was while they were frozen: whatever they are
// about to write is copied first.
//
// Their private anonymous memory is registered with userfaultfds of its own in the mode of write
// protection with notification (userfaultfd(2), UFFDIO_REGISTER_MODE_WP): a thread that writes to a
// protected page waits until the one here has copied what is around it and let it through. For
// processes that write faster than rounds copy (tracker.hpp): the stop is as short whatever they
// write, and they run slower until all is copied.
//
//   they run     arm(): all is protected, and writes go through: what was written is not protected
//                any more, so that little has to be protected again when they are frozen
//   frozen       hold(), then protect() what was written, save(), go()
//   they run     copy_rest()
//
// What they give back while it is being copied (munmap, madvise, mremap) is lost to us:
// copy_rest() fails then, and never takes anything else for it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <sys/types.h>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/memory/page_scan.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/page_store.hpp"
#include "ghost-core/memory/tracker.hpp"
#include "ghost-core/memory/workers.hpp"

namespace ghost::core {

// Its owner is one thread; one of its own answers the processes. If the owner dies the kernel lets
// everybody through; while it is stopped they wait for it.
class CopyBeforeWrite {
  public:
    CopyBeforeWrite();
    // Nothing is protected afterwards, and nobody waits.
    ~CopyBeforeWrite();
    CopyBeforeWrite(const CopyBeforeWrite&) = delete;
    CopyBeforeWrite& operator=(const CopyBeforeWrite&) = delete;

    // Protects all private anonymous memory of a process that runs and is not tracked.
    // `userfault`: as take_userfault() gives it. `there`: what is there, contents in `written`.
    Status arm(int inner_pid, pid_t pid, Fd userfault, Workers& workers, PageChanges& there);

    // All processes are frozen. Whoever writes nevertheless waits, until go() or give_up().
    void hold();
    // Between hold() and go():
    // For Tracker::look(): what is not protected was written since arm(), or has come since.
    const PageScan& scan(int inner_pid) const { return *find(inner_pid)->scan; }
    // Whether an area, one line of its memory map, is protected as far as is known: neither new nor
    // moved.
    bool is_armed(int inner_pid, const PageRun& area) const;
    // False: it is another area than the one that was armed.
    bool protect(int inner_pid, const PageRun& part) const;
    // Pages with their places, all in these areas and protected. The store outlives this object,
    // and stays as it is.
    void save(int inner_pid, PageRuns contents, const PageRuns& areas, const PageStore& store);
    void go();

    // While they run: copies what has not been copied yet. busy: something was given back before.
    // refused: `watch` (called by any of the threads, with bytes) said no. After a failure every
    // write goes through.
    Status copy_rest(Workers& workers, const std::function<bool(uint64_t bytes)>& watch);
    // Everybody is let through.
    void give_up();

    uint64_t bytes() const { return bytes_; }  // of contents to be saved
    // Of those, what was copied because somebody was about to write there.
    uint64_t faulted() const { return faulted_; }

  private:
    enum class Mode {
        open,     // writes go through
        holding,  // they wait
        saving    // they go through when what was there is copied
    };
    enum class State : uint8_t { kept, busy, copied };
    enum class Answer { done, later, gone };
    struct Process {
        int inner = 0;
        pid_t pid = 0;
        Fd userfault;
        std::optional<PageScan> scan;
        PageRuns areas;   // armed
        PageRuns doubts;  // have been moved since
        // From save() on:
        PageRuns contents;
        const PageStore* store = nullptr;
        std::vector<PageRun> windows;  // sorted; each in one area
        std::unique_ptr<std::atomic<State>[]> states;
    };
    struct Fault {
        Process* process = nullptr;
        uint64_t page = 0;
        std::optional<size_t> window;  // is copied, and still protected
    };

    Process* find(int inner_pid) const;
    void serve();
    void read_events(Process& process);
    void fault(const Fault& fault);
    void save_first(const Fault& fault);
    void let_through(const Fault& fault);
    void moved(Process& process, const PageRun& from, const PageRun& to);
    Status copy(const Process& process, const std::vector<size_t>& windows) const;
    Status copy_batch(Process& process, size_t first, size_t last,
                      const std::function<bool(uint64_t bytes)>& watch);
    static Answer unprotect(const Process& process, const PageRun& run);
    bool unprotect_all(const Process& process, const std::vector<size_t>& windows) const;
    void fail(const Error& error);
    void wake() const;

    Fd bell_;  // eventfd: the thread looks again
    // Held while events are read and answered, and while windows become copied: who sees a window
    // that is not copied when it hears of a move knows that it may have been copied too late.
    mutable std::mutex mutex_;
    Mode mode_ = Mode::open;
    std::vector<std::unique_ptr<Process>> processes_;
    std::vector<Fault> waiting_;  // until go()
    std::vector<Fault> again_;    // the memory map was changing
    std::optional<Error> failure_;
    std::atomic<bool> failed_ = false, stopping_ = false;
    std::atomic<uint64_t> faulted_ = 0;
    uint64_t bytes_ = 0;
    std::thread thread_;
};

}  // namespace ghost::core
