// SPDX-License-Identifier: BSD-3-Clause
// Live migration by restore ahead: a tree is made at the target from an early skeleton and held
// there, while the original runs; its memory follows round after round; at the end both are frozen,
// what has changed since is sent, and the copy goes on. The longest stop is some milliseconds.
//
//   source (live_export)                        target (live_import)
//   short stop: skeleton; tree runs on    ───►  tree made, held, all memory in
//   rounds: mappings, written pages       ───►  applied
//   freeze: registers, mappings, files,
//           last pages                    ───►  applied; ready, or refused
//   commit(): the decision is recorded
//   COMMIT                                ───►  release(): recorded; the tree goes on
//   the original is ended                 ◄───  released
//
// Post-copy and hybrid: the last stop names pages instead of sending them; the tree goes on without
// them, they follow as it touches them, and behind, and only when all are there is the original
// ended: it is stopped until then (SIGSTOP). What the loss of either side means before that is told
// by LiveOutcome::stranded. No page is ever replaced by zeros (memory/fault_keeper.hpp).
//
// Before COMMIT any failure, of the connection, the other side or criu, leaves the original running
// as if nothing had been, and nothing at the target. What differences cannot carry (threads made or
// ended, files opened or closed, new mappings of files …) makes it begin anew with a fresh
// skeleton; what never can be carried so (timers, sockets, memory shared without a file …) is
// unsupported: the tree can still move with export_tree().
//
// A tree that belongs to something larger, and stands still for a skeleton only while that has made
// it quiet (a rank, whose links are closed then), says so by LiveExportRequest::quiet; and whoever
// has others to ask for the decision takes it with both trees stopped: `leave_stopped` and
// live_hold().
//
// These calls block, each on a worker thread of the caller that has no other child processes to
// wait for; the link is a connection in both directions (NetworkResource). Needs root and a criu
// with our changes (knows_short_stop()).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/control_socket.hpp"
#include "base/result.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

// When pages travel.
enum class PageOrder {
    pre_copy,   // all before the tree goes on at the target
    post_copy,  // all after it
    hybrid      // in rounds before it; those after it that would make the last stop too long
};

struct LiveExportRequest {
    pid_t root = 0;                      // init of the PID name space, as numbered here
    std::vector<std::string> externals;  // as of ExportRequest
    Json metadata;                       // opaque here; the target has it before the tree is made
    CriuSettings criu;
    HugeMemory huge;  // as of ExportRequest

    PageOrder order = PageOrder::pre_copy;
    int64_t downtime_us = 2000;   // copying goes on in rounds until the last one would take less
    int64_t longest_us = 100000;  // if it does not get there: stop anyway if it would take less
                                  // than this, else give up (Code::refused); hybrid: the rest
                                  // follows
    int attempts = 4;             // skeletons taken before giving up (Code::busy)

    // Before each skeleton and each last stop: whether the tree is quiet. It may wait for so long;
    // until it says so rounds go on. Quiet is until go_on(). Between two quiets mappings of files
    // may be what they like. An error calls it off. May be empty.
    std::function<Result<bool>(int64_t wait_us)> quiet;
    // The skeleton is taken: quiet is over.
    std::function<void()> go_on;
    // Fields of the metadata that are as of the last stop: given to the target with it. May be
    // empty.
    std::function<Json()> final_metadata;
    // The target is one of live_hold(): the decision is the caller's (LiveOutcome::exported).
    bool leave_stopped = false;

    // The target has everything and is ready: records the decision. An error calls it off. May be
    // empty.
    std::function<Status()> commit;
    // Bytes sent so far and, of the round that goes on, to be sent in all. On the calling thread.
    Progress progress;
    std::function<void()> gets_on;  // as ExportRequest's
};

// µs unless said otherwise.
struct LiveStats {
    int attempts = 0, rounds = 0;
    uint64_t bytes = 0;         // of pages, sent
    uint64_t last_bytes = 0;    // of them, in the last stop
    int64_t skeleton_stop = 0;  // the tree was frozen for its skeleton
    int64_t attach_stop = 0;    // one thread of each process was held to begin tracking, at most
    // The last stop, from before it to the target's type that the tree goes on there:
    int64_t stop = 0;
    int64_t freeze = 0, state = 0, mappings = 0, files = 0, scan = 0, send = 0;  // parts: source
    int64_t ready = 0;    // waiting for the target to be ready
    int64_t commit = 0;   // commit() and sending it
    int64_t release = 0;  // waiting for the target's type
    // Parts at the target, as it says: applying mappings, pages and state; letting go.
    int64_t target_mappings = 0, target_pages = 0, target_state = 0, target_release = 0;
    // Pages that followed: bytes named in the last stop (and those between them that came along),
    // and how it was without them, as the target says.
    uint64_t deferred_bytes = 0, faults = 0, demand_bytes = 0;
    uint64_t served_bytes = 0;  // asked for; what the program has dropped meanwhile is not
    int64_t longest_fault = 0;  // somebody waited for a page
    int64_t deferred = 0;       // from the target's type until all were there
    int64_t total = 0;

    int64_t longest_stop() const { return skeleton_stop > stop ? skeleton_stop : stop; }
};

enum class LiveOutcome {
    stayed,    // the original runs on; nothing is left at the target
    exported,  // leave_stopped: the target holds all of it, and the original is stopped (SIGSTOP),
               // whole: kill_tree(), or resume_tree()
    moved,     // the tree runs at the target; the original has been ended
    stranded,  // post-copy: it ran at the target, and the connection was lost before all pages were
               // there (or the answer that they are). The original is stopped (SIGSTOP), whole as
               // of its last stop. If live_import() there has succeeded: kill_tree(). If not, its
               // copy has been ended, after it ran for a while: resume_tree() if what it has done
               // in that time may be done again, else a snapshot.
    undecided  // COMMIT was sent, and the connection was lost before the answer: the original
               // is stopped (SIGSTOP). If the target's record says released: kill_tree(); if it is
               // known to be gone without: resume_tree().
};

// What has tracked the writes of a tree.
class LiveTracking {
  public:
    virtual ~LiveTracking() = default;
    // It runs on where it is, as if nothing had been; takes its time.
    virtual void stay() = 0;
};

struct LiveExport {
    LiveOutcome outcome = LiveOutcome::stayed;
    LiveStats stats;
    std::optional<Error> error;  // unless moved or exported
    // exported: until the original has been killed, or resumed: stay().
    std::shared_ptr<LiveTracking> tracking;
};
LiveExport live_export(const LiveExportRequest& request, Resource& link);

// Whether the kernel and criu here can do that with any tree; nobody is disturbed.
Status check_live_here(const CriuSettings& criu);

struct LiveImportRequest {
    CriuSettings criu;
    // New ends for the tree's descriptors, by the metadata; they stay the caller's. Called for
    // every skeleton that comes; the answer to the last one counts. May be empty.
    std::function<Result<std::vector<InheritFd>>(const GhostMetadata&)> inherit;
    // The same by all of the metadata, for whoever has members of its own there. May be empty.
    std::function<Result<std::vector<InheritFd>>(const Json&)> inherit_by_all;
    // The decision has been made, the tree is about to run here: records that. From here on this
    // side's record is what counts. An error ends the tree, and the source is told so. May be
    // empty.
    std::function<Status()> release;
    // As Importer::tell_root(), of every skeleton that comes. May be empty.
    std::function<void(pid_t)> tells_root;
    Progress progress;
    std::function<void()> gets_on;  // as Importer::tell_steps()
    // live_hold(): the source's final_metadata. May be empty.
    std::function<Status(const Json& fields)> last_metadata;
};

struct LiveImport {
    pid_t root = 0;  // a child of the calling process; it runs
    uint64_t bytes = 0;
    int64_t held_us = 0;              // from the begin to the first skeleton's tree
    std::shared_ptr<HugePages> huge;  // as in HeldTree; null: none
};
// Returns when the tree runs and all its pages are there. On failure nothing is left; if pages were
// to follow, the tree may have run for a while (request.release has been called).
Result<LiveImport> live_import(const LiveImportRequest& request, Resource& link);

// For a source with leave_stopped: returns when all of the tree is there and it is stopped, as
// Importer::hold() does. `request.release` is not called.
Result<HeldTree> live_hold(const LiveImportRequest& request, Resource& link);

// For tests: called at each numbered point of either side with its name ("source: frozen").
void set_live_probe(std::function<void(const char* point)> probe);

}  // namespace ghost::core
