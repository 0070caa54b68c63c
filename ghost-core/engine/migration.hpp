// SPDX-License-Identifier: BSD-3-Clause
// The mechanism of a migration: a tree leaves as a ghost (export_tree) and enters as one
// (Importer).
//
//   source                                   target
//   check_movable(root, …)                   listener = NetworkListener::listen(secret)
//   warm_up()                                warm_up()
//   out = NetworkResource::connect(…)        in = listener.accept(…)
//   export_tree({root, …}, *out)      ───►   importer = Importer::open(*in)
//     tree stopped, intact                   held = importer.hold(…): tree there, not running
//   destroy_tree or resume_tree              release_tree or destroy_tree
//
// Everything blocks; nothing is kept between calls; one call at a time per work_dir. The caller
// must not reap unknown children while a call runs (criu is this process's child). Needs root.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "base/control_socket.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/format/format.hpp"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/criu/criu.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/file_locks.hpp"
#include "ghost-core/criu/placement.hpp"
#include "ghost-core/criu/preflight.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

// Called on the calling thread, at most every few ms: page bytes done and to be done.
using Progress = std::function<void(uint64_t bytes, uint64_t total)>;

struct ExportRequest {
    pid_t root = 0;                      // init of the PID name space, as numbered here
    bool nested = true;                  // else the root is a process like any other
    std::vector<std::string> externals;  // criu --external keys: "tty[rdev:dev]", "unix[inode]", …;
                                         // "pipe:[inode]" may be there too and is needed only for
                                         // check_movable
    Json metadata;    // opaque here, but for "needs"; the importer has it before the tree is made
    HugeMemory huge;  // what is to lie in huge pages again, beside what does now
    // What was found of the tree while it runs; nothing: it is looked for. The ghost has what is
    // true when the tree is stopped, in its head, with "needs" in the metadata if it has such; over
    // a network, where the target gets ready by the head meanwhile, behind it what has changed.
    Ghosts ghosts = Ghosts::are_kept;
    std::optional<TreeFacts> facts;
    // The target has been asked about these and needs not be told them in the head, nor again.
    bool is_told = false;
    CriuSettings criu;
    Progress progress;  // may be empty
    // Called whenever something else was done: whoever waits knows that it goes on. May be empty.
    std::function<void()> gets_on;
    // When every task is stopped and the skeleton is complete: what else is to be in it. An error
    // makes the export fail. May be empty.
    std::function<Result<SkeletonFiles>()> while_stopped;
    // Fields of the metadata that are not known before that. Called as soon as every task is
    // stopped. May be empty.
    std::function<Json()> final_metadata;
};

struct ExportStats {
    uint64_t skeleton_bytes = 0;
    uint64_t page_bytes = 0;   // of pages that were sent
    uint64_t zero_bytes = 0;   // of pages that were not sent because they hold only zeros
    int64_t frozen_us = 0;     // from before the freeze to the last byte written
    int64_t skeleton_us = 0;   // of it, CRIU's part
    int64_t pages_us = 0;      // of it, the pages' part (overlaps with the skeleton)
    int64_t total_us = 0;      // the whole call
    Hash128 digest;            // the ghost's own
    std::string not_deferred;  // CheckpointStats's
    // Locks of files that the tree made of the ghost has now, if it goes to another machine at
    // once: a tree that is to go on after all takes them back before (lock_handover.hpp).
    std::vector<FileLock> given;
};

// A criu that waits for its export (prepare_export()).
struct ReadyExport {
    struct Hooks;  // what it calls, put in when that has begun
    std::shared_ptr<Hooks> hooks;
    TreeDump dump;
};

// Freezes the tree and writes it to `out` as a ghost; finalizes `out`. On success every task of the
// tree is stopped and intact, until resume_tree() or destroy_tree(). On failure every task runs on
// and nothing is left behind. Resource errors come through; corrupt never comes from here.
// A criu that somebody else kills with SIGKILL is such a failure too (with our change of criu,
// packaging/criu; without it the tree may die). If the caller is killed, criu gives up by itself,
// the tree is left stopped, and resume_tree() of another process makes it go on.
// `ahead`: what prepare_export() gave for this tree, these externals and this criu; used up.
Result<ExportStats> export_tree(const ExportRequest& request, Resource& out,
                                std::optional<ReadyExport> ahead = {});

// Starts the criu of an export while the tree goes on, which is nearly half of what a small tree
// is frozen for otherwise. Returns at once; the tree may change meanwhile. Destroyed without
// export_tree(): nothing was.
Result<ReadyExport> prepare_export(const ExportRequest& request);

// A restored tree that has not executed an instruction yet.
struct HeldTree {
    pid_t root = 0;      // the caller's child
    uint64_t bytes = 0;  // page contents filled in
    uint64_t skeleton_bytes = 0;
    int64_t skeleton_us = 0;  // from the skeleton's arrival to the tree's existence
    int64_t pages_us = 0;     // from the first page's arrival to the last one in place
    int64_t total_us = 0;     // hold(), waiting for the source included
    // If keep_userfaults() was called: by inner pid, for a post-copy later. Shared by copies of
    // this.
    std::shared_ptr<std::map<int, Fd>> userfaults;
    // Memory that lay in huge pages and is to lie in such again when the tree runs; while one of
    // the copies of this is kept. Null: none.
    std::shared_ptr<HugePages> huge;
    // How its threads are to be scheduled; of a ghost of an older Ghost: nothing of any.
    std::shared_ptr<const TreePlacement> placement = std::make_shared<TreePlacement>();
};

// Lets the tree run, and makes huge pages again beside it. After that `held.root` is an ordinary
// child of the caller.
Status release_tree(const HeldTree& held);
// Kills and reaps the tree; root becomes 0. Nothing happens if it is 0 already.
void destroy_tree(HeldTree& held);
// The same for a tree that was exported: kills the init, which ends every task of the PID name
// space; does not reap (the caller gets SIGCHLD if it is the parent).
Status kill_tree(pid_t root);

// A descriptor here that takes the place of one outside the tree: fd stays the caller's, and the
// key is CRIU's: "pipe:[inode]", "tty[rdev:dev]", "socket:[inode]" (for an external unix[inode]).
struct InheritFd {
    int fd = -1;
    std::string key;
    // Shared memory: which one's contents it gets, if the ghost has them (shared_memory.hpp).
    std::string memory = {};
};

// Reads one ghost. One thread; `in` must outlive it.
class Importer {
  public:
    // Reads the head: format, host facts and metadata. unsupported: the ghost cannot run on this
    // machine (architecture, page size, CPU features); corrupt.
    // check false: the caller compares host() with this machine itself.
    static Result<Importer> open(Resource& in, bool check = true);
    Importer(Importer&&) noexcept;
    Importer& operator=(Importer&&) noexcept;
    ~Importer();

    const Json& metadata() const;
    const GhostMetadata& known() const;  // what of it ghost-core knows
    const std::string& host() const;     // host_facts() of the source

    // An incremental ghost needs its parent, that one's parent, …, a full ghost: give each, as long
    // as there is one here. Each is read once, after its child, and must outlive this. refused: it
    // is not the one the child was made from.
    const std::optional<ParentRef>& parent() const;
    Status add_parent(Resource& in);

    // The ghost is of a tree without a PID name space of its own: its root gets this number again.
    void expect_plain(pid_t root);

    // What is lacking here by its name, by a head that has left before the tree was stopped: it may
    // not need that any more. hold() fails, refused, if it does.
    void lacks(std::vector<Shortcoming> by_the_head);

    // The tree's clocks are to be ahead of this machine's by this at any time (live migration),
    // instead of going on from where they stood in the skeleton.
    void set_clocks(int64_t monotonic_ns, int64_t boottime_ns);

    // HeldTree::userfaults is wanted.
    void keep_userfaults();

    // hold() tells the tree's first process while it is only being made, before it could outlive
    // criu and this process.
    void tell_root(std::function<void(pid_t)> told);

    // hold() calls this whenever criu has come on: of many processes each takes its time, and
    // progress() tells of memory only.
    void tell_steps(std::function<void()> gets_on);

    // Nobody is frozen for this: hold() takes no processor from those that run here
    // (realtime_priority.hpp).
    void take_time();

    // Makes the tree: all memory in, all checksums right, every task stopped. May be called before
    // the source has frozen the tree: criu is started ahead of need. On failure nothing is left.
    Result<HeldTree> hold(const CriuSettings& criu, const std::vector<InheritFd>& inherit,
                          const Progress& progress = {});

  private:
    struct State;
    explicit Importer(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// Of what is lacking by the head, the importer gets what has a name.
void leave_named(Importer& importer, std::vector<Shortcoming>& lacking);

}  // namespace ghost::core
