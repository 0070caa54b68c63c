// SPDX-License-Identifier: BSD-3-Clause
// Post-copy: processes run at once, and their pages follow: those they touch on demand, with some
// around them, all others in the background (userfaultfd(2)).
//
// What a failure means: a process whose pages are not all in place cannot go on without whoever
// has them. If they cannot be got any more, it waits at the next missing page, and has to
// be killed: nothing wrong is ever put in their place. So the source must not be given up before
// run() has succeeded, and a tree without a snapshot elsewhere is better not moved this way.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/memory/fault_keeper.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/userfault.hpp"

namespace ghost::core {

// Who has the pages: a ghost that can be read at any place, the stopped original, a connection to
// it.
class PageProvider {
  public:
    virtual ~PageProvider() = default;
    // The pages of a process that have content; all others of its memory are zero.
    virtual PageRuns pages(int inner_pid) = 0;
    // Reads these pages of it, one after the other, to `to`. Several threads at once.
    virtual Status read(int inner_pid, const PageRun& run, char* to) = 0;
};

// Where the pages of one process that are still missing are in its memory, and what they were
// called when the ghost was made. Not locked.
class MissingPages {
  public:
    explicit MissingPages(const PageRuns& pages = {});
    struct Piece {
        uint64_t start = 0, bytes = 0;
        uint64_t original = 0;  // address of its content at the provider
    };
    bool empty() const { return pieces_.empty(); }
    // The piece that begins in [start, start + bytes) or reaches into it, cut to it; bytes 0: none.
    Piece find(uint64_t start, uint64_t bytes) const;
    // The first piece at or behind `start`, or the very first, at most so long.
    Piece next(uint64_t start, uint64_t most) const;
    void remove(uint64_t start, uint64_t bytes);
    void move(uint64_t from, uint64_t to, uint64_t bytes);
    uint64_t bytes() const;

  private:
    std::map<uint64_t, Piece> pieces_;  // by start
};

class PostCopy : public FaultServer {
  public:
    struct Stats {
        uint64_t faults = 0;            // that were answered with content
        uint64_t demand_bytes = 0;      // brought by them
        uint64_t background_bytes = 0;  // brought without being asked for
        int64_t longest_us = 0;         // somebody waited for a page
    };

    // The provider must outlive it. Its threads begin with the first process.
    explicit PostCopy(PageProvider& provider);
    // The keeper, which outlives this, holds the userfaultfds of all processes, also of those the
    // tree makes from now on, until all pages are there. Before the tree runs.
    Status watched_by(FaultKeeper& keeper);
    // Ends everything. The processes must be dead by now unless wait() has succeeded.
    ~PostCopy() override;

    // FaultServer: what the restorer calls.
    void add(int inner_pid, Fd userfault) override;
    std::vector<std::pair<int, int>> descriptors() override { return {}; }
    Status handle(int /*inner_pid*/) override { return {}; }
    void all_there() override;
    void release() override {}
    std::map<int, Fd> hand_over(const std::map<int, PageRuns>& /*areas*/) override { return {}; }
    uint64_t filled() const override { return demand_bytes_ + background_bytes_; }

    // Until every page is in place; then the processes are on their own. Error: the provider's, or
    // that of stop().
    Status wait();
    void stop();
    Stats stats() const;

  private:
    struct Process;
    using ProcessPointer = std::shared_ptr<Process>;

    void serve();
    enum class Changing { is_left, is_waited_for };  // memory nothing can be put into now
    Status hear(const ProcessPointer& process);
    Status hear_all(const ProcessPointer& process);
    Status answer(const ProcessPointer& process, uint64_t address);
    void fill();
    Result<uint64_t> bring(Process& process, const MissingPages::Piece& piece, char* buffer,
                           Changing changing);
    Result<uint64_t> put(Process& process, const MissingPages::Piece& piece, const char* content);
    static Status put_zero(Process& process, uint64_t page);
    void fail(Error error);
    std::vector<ProcessPointer> processes();

    PageProvider& provider_;
    std::atomic<FaultKeeper*> keeper_ = nullptr;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<ProcessPointer> processes_;
    std::optional<Error> failure_;
    bool complete_ = false;
    std::atomic<bool> all_there_ = false, stopping_ = false;
    std::atomic<uint64_t> faults_ = 0, demand_bytes_ = 0, background_bytes_ = 0;
    std::atomic<int64_t> longest_us_ = 0;
    Fd wake_;
    std::thread server_, filler_;
};

}  // namespace ghost::core
