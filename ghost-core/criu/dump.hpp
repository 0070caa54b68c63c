// SPDX-License-Identifier: BSD-3-Clause
// Takes the skeleton of a tree with criu, straight into a ghost stream or into memory.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/criu/criu.hpp"
#include "ghost-core/criu/criu_images.hpp"

namespace ghost::core {

class StoppedTree;

// Image files of a skeleton, {name, content}.
using SkeletonFiles = std::vector<std::pair<std::string, std::string>>;

struct DumpRequest {
    pid_t root = 0;
    std::vector<std::string> externals;  // criu keys
    CriuSettings criu;
    bool nested = true;  // the root is the init of a PID name space; else a job of some session

    // The short stop. Needs our changes of criu (knows_short_stop()), else it means nothing.
    // - TaskPages::ranges name whole mappings, holes, unreadable parts and guard pages included:
    //   the caller finds out which pages are there.
    // - The flags of mappings are looked at before the stop. If they were changed in that moment,
    //   everything is done once more: the hooks are called a second time, and the last call counts.
    // - The skeleton goes into the stream in one piece at the end.
    bool short_stop = false;
    // The flags are read in the stop, by BPF, where the kernel and the privilege are there for it:
    // nothing is looked at before and after, and nothing done once more.
    bool flags_in_stop = true;

    // Called on the calling thread when all is ready that can be before the stop; returns when the
    // tree is to be frozen, at any later time. An error gives the dump up: nothing was touched.
    // Once.
    std::function<Status()> before_stop;
    // Called, on a thread of its own, when every task is frozen, while criu takes the skeleton.
    // criu works in the tasks meanwhile: it writes, and puts back, the first bytes of their first
    // executable mapping, and maps and unmaps memory of its own (shared, so not of ours).
    std::function<Status()> on_stopped;
    // Called on the calling thread, once, before anything of the skeleton is written to a stream:
    // what is to be there in front of it, as files of its own. Every task is frozen. An error makes
    // the dump fail.
    std::function<Result<SkeletonFiles>()> before_skeleton;
    // The guard pages (MADV_GUARD_INSTALL) of a process of the tree, where on_stopped finds them:
    // called on the calling thread when that is through, for each process. Without it criu looks
    // for them itself, and walks all page tables.
    std::function<Result<std::vector<PageRun>>(pid_t)> guards;
    // Called on the calling thread when the skeleton is complete and on_stopped is through; the
    // tasks are still frozen. An error of either hook makes the dump fail: every task runs on.
    std::function<Status()> before_release;
    // Called on the calling thread whenever criu has got on: another image, another point.
    std::function<void()> gets_on;
    // On success every task goes on at once instead of staying frozen.
    bool leave_running = false;
};

// Where the time of a stop went, µs.
struct DumpTimes {
    int64_t ahead = 0;     // criu's preparations, the tree runs
    int64_t stop = 0;      // until every task is frozen and its state is noted
    int64_t seize = 0;     // until criu has seized them
    int64_t skeleton = 0;  // until criu has all
    int64_t hooks = 0;     // waiting for the hooks beyond that
    int64_t release = 0;   // until criu has let them go
    int64_t resume = 0;    // until they run (leave_running)
    int64_t frozen = 0;    // all of it but `ahead`
};

struct DumpResult {
    std::vector<TaskPages> pages;  // what the skeleton leaves to us
    std::vector<FileLock> locks;   // of files
    uint64_t skeleton_bytes = 0;
    int files = 0;  // of the skeleton, numbered from 0
    DumpTimes times;
};

// Whether this build of criu has what the short stop needs; without it all still works, slower.
bool knows_short_stop(const CriuSettings& settings);

// A criu started ahead of need: it has looked at the kernel, the mounts and (short_stop) the
// mappings, and waits, as long as one likes. The tree runs until run(). One thread; destroyed
// without run(): nothing was.
class TreeDump {
  public:
    // Starts criu and returns at once. With a criu without our changes nothing is started yet.
    static Result<TreeDump> prepare(DumpRequest request);
    TreeDump(TreeDump&&) noexcept;
    TreeDump& operator=(TreeDump&&) noexcept;
    ~TreeDump();

    // Takes the skeleton and writes it, without its end mark. On success every task of the tree is
    // stopped, or runs (leave_running); on failure every task runs on. Blocks. Once. criu may be
    // about to end then; it has ended, and left nothing, when the object is destroyed.
    Result<DumpResult> run(GhostWriter& writer);
    // The same into memory.
    Result<DumpResult> run(SkeletonFiles& files);
    // While on_stopped is called: the frozen tree.
    const StoppedTree& stopped_tree() const;

  private:
    class Dumper;
    explicit TreeDump(std::unique_ptr<Dumper> dumper);
    std::unique_ptr<Dumper> dumper_;
};

}  // namespace ghost::core
