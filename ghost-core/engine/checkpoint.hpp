// SPDX-License-Identifier: BSD-3-Clause
// The mechanism of a checkpoint: a ghost of a tree that goes on running, whose stop is short.
//
//   the tree runs    its memory is copied in rounds, each of what was written since the one before;
//                    criu gets ready
//   it is frozen     criu takes the skeleton; at the same time the last differences are read
//   it runs          the copy is written to the resource
//
// The ghost shows the tree as it was while it was frozen. Needs memory for a second copy of what is
// written; the same memory is used again by the next checkpoint of the same Checkpointer, which
// takes a tenth of the time of a fresh one to fill. Needs root. A criu without our changes makes
// the stop longer (by 30 ms per GiB), nothing else.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/format.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/memory/stopping_rule.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

struct CheckpointStats;

struct CheckpointRequest {
    pid_t root = 0;                      // init of the PID name space, as numbered here
    std::vector<std::string> externals;  // as ExportRequest's
    Json metadata;                       // opaque here
    CriuSettings criu;
    Progress progress;  // while it is written; may be empty
    // While memory is looked at and copied: MemoryCopy::Watch. Called by any thread.
    std::function<bool(uint64_t bytes)> copying;

    // Only what has changed since the last checkpoint of this Checkpointer, which must have kept
    // its tracking; invalid otherwise. Its ghost becomes the parent of this one.
    bool incremental = false;
    // File name under which the ghost will be known to later incremental ones; a hint for people.
    std::string name;
    // Goes on tracking, so that the next checkpoint can be incremental. Costs the tree about a
    // microsecond for the first write to each page after each checkpoint.
    bool keep_tracking = false;
    // Leaves a criu behind that is ready for the next checkpoint of the tree (with the same
    // externals and criu settings), which is 5 ms shorter for it: a child of this process, idle, of
    // some MB, which keeps some files in its work folder. It goes with the tracking. Needs
    // keep_tracking.
    bool stay_ready = false;

    StoppingRule::Limits rounds;
    // If the rounds do not come to an end and the rest would take longer than this to copy while
    // the tree is frozen, in us, everything is copied when it runs again (copy_before_write.hpp):
    // it is slower then until that is done, and the next checkpoint is as large as a full one. A
    // tree that gives memory back meanwhile (munmap, MADV_DONTNEED) makes that fail: it is done
    // again the other way at once, or, if there are hooks, fails (busy) and is done the other way
    // next time. -1: always. `worth_it_us`: where two processors gain by it (docs/PERFORMANCE.md).
    static constexpr int64_t never = INT64_MAX, worth_it_us = 50'000;
    int64_t defer_above_us = never;
    // Between two rounds, at least, once the tree may be stopped and is waited for: short enough
    // that little is written, long enough that the rounds cost no part of a processor worth the
    // name.
    int64_t rest_us = 2000;

    // Every hook may be empty and is called on the calling thread.
    // When all has been copied once and criu is ready, while further rounds go on: returns when the
    // tree is to be frozen. An error calls the checkpoint off, and the tree has not been touched.
    std::function<Status()> wait_to_freeze;
    // While every task is frozen and all is copied; its time is part of the pause. An error makes
    // the checkpoint fail.
    std::function<Status()> while_stopped;
    // When the tree runs again (or is frozen, leave_stopped), before the writing; the times and
    // what the rounds did are known.
    std::function<void(const CheckpointStats&)> captured;
    // After that: fields of the metadata that were not known before.
    std::function<Json()> final_metadata;
    // And what is to be in the skeleton beside criu's files.
    std::function<SkeletonFiles()> final_files;
    // On success the tree stays stopped, as after export_tree().
    bool leave_stopped = false;
};

struct CheckpointStats {
    int64_t pause_us = 0;         // the tree was frozen so long
    int64_t skeleton_us = 0;      // of it, criu's part
    int64_t memory_us = 0;        // of it, the last differences; at the same time as criu's
    int64_t join_us = 0;          // of that: until the round that went on was through,
    int64_t scan_us = 0;          // and finding the differences
    int rounds = 0;               // before the pause
    uint64_t round_bytes = 0;     // copied by them
    uint64_t last_bytes = 0;      // copied in the pause
    uint64_t deferred_bytes = 0;  // copied after it, of which
    uint64_t faulted_bytes = 0;   // the tree was about to write there
    int64_t deferred_us = 0;      // and how long that took
    std::string not_deferred;     // why nothing was though it would have been better; or empty
    double dirty_rate = 0;        // bytes per second, as far as the rounds could tell
    uint64_t page_bytes = 0;      // of pages in the ghost
    uint64_t zero_bytes = 0;      // of pages left out or only named because they hold zeros
    uint64_t skeleton_bytes = 0;
    int64_t copy_us = 0;   // from the begin to the pause
    int64_t first_us = 0;  // of it, the first round,
    int64_t ahead_us = 0;  // and how long criu got ready, at the same time
    int64_t write_us = 0;  // from the pause's end to that of the resource's finalize()
    int64_t total_us = 0;
    ParentRef as_parent;  // what an incremental ghost calls this one
};

// What is kept between the checkpoints of one tree: memory, and the tracking. One thread at a time.
class Checkpointer {
  public:
    Checkpointer();
    ~Checkpointer();
    Checkpointer(const Checkpointer&) = delete;
    Checkpointer& operator=(const Checkpointer&) = delete;

    // Writes a ghost of the tree to `out` and finalizes it. Whatever happens, the tree runs on
    // afterwards (but see leave_stopped). After a failure it is not tracked any more, and nothing
    // was finalized. The caller must not reap unknown children meanwhile.
    Result<CheckpointStats> run(const CheckpointRequest& request, Resource& out);

    // Whether the next run() for this tree may be incremental.
    bool may_be_incremental(pid_t root) const;
    // Ends the tracking gently. The memory stays for the next checkpoint.
    void stop_tracking();
    // What tracking has taken out of huge pages, as far as is known, so that it gets such again
    // where the tree is moved to.
    HugeMemory huge() const;
    // The same as stop_tracking(), and makes those huge pages here again, beside the tree. So does
    // run() without keep_tracking. wait_huge_pages(): until that is through; the destructor breaks
    // it off.
    void end_tracking();
    void wait_huge_pages();
    // Gives the memory back, and goes on tracking. (What run() leaves of it the system takes by
    // itself where it is short of memory.)
    void trim();
    // Does both.
    void clear();
    uint64_t held() const;  // bytes of that memory

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace ghost::core
