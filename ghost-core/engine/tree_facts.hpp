// SPDX-License-Identifier: BSD-3-Clause
// What a tree needs where its ghost becomes a process. It is read while the tree runs, which takes
// a millisecond, and again as of the moment at which it is stopped, which is quick then: only that
// is true of the ghost.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/engine/ghost_metadata.hpp"
#include "ghost-core/format/files.hpp"

namespace ghost::core {

struct TreeFacts {
    SeenFiles files;
    std::optional<Needs> needs;  // what it needs besides those; nothing: it was not looked at

    // host_facts() (ghost-core/format/host.hpp): processor, kernel, files.
    std::string host() const;
};

// As the tree is now: before its stop, or at it, then with what was found `before`. Both only look;
// any thread. not_found: the tree is gone.
Result<TreeFacts> facts_of(pid_t root, Ghosts ghosts);
TreeFacts facts_of(const std::vector<Task>& tasks, Ghosts ghosts, const TreeFacts& before);
// Only what it needs besides files.
Result<Needs> needs_of(pid_t root);

// Several looks at a tree that runs, for whoever finds something lacking: what the tree has by a
// name for a moment only is none that it needs. One thread.
class Looks {
  public:
    // `locks`: its exclusive ones too.
    Looks(pid_t root, Ghosts ghosts, bool locks = false)
        : root_(root), ghosts_(ghosts), locks_(locks) {}

    // One more, some time after the one before.
    Status look();
    bool may_look() const { return looks_ < most_looks; }
    const TreeFacts& latest() const { return latest_; }
    // Without those of its names that it has not had in all looks.
    const TreeFacts& lasting() const { return lasting_; }

  private:
    static constexpr int most_looks = 10;

    pid_t root_;
    Ghosts ghosts_;
    bool locks_;
    int looks_ = 0;
    TreeFacts latest_, lasting_;
};

// As it was at its stop, by the skeleton that was taken then; it may run on meanwhile, and nothing
// is done for this while it is stopped. Calls in the order below; look() may be made by another
// thread than the others.
class SkeletonFacts {
  public:
    // While it runs.
    Status look(pid_t root, Ghosts ghosts);
    // While it is stopped. Always OK, as a hook is (DumpRequest::on_stopped).
    Status stopped();
    // The files, and of the needs those with a name; what else it needs is as of look().
    TreeFacts by(const SkeletonFiles& skeleton) const;

  private:
    Ghosts ghosts_ = Ghosts::are_kept;
    int64_t stop_ns_ = 0;  // CLOCK_REALTIME, as files' times
    TreeFacts before_;
};

// A ghost whose head has left before its tree is stopped has this as the first file of its
// skeleton, if its needs at the stop were others:
// what of the head is not needed any more, and what is needed besides.
struct NeedsAtStop {
    struct Named {
        std::vector<std::string> folders, pipes;
        static const schema::Record table;
    };
    std::vector<std::string> released;
    std::vector<schema::Raw> files;  // as in the head's facts
    Named needs;
    static const schema::Record table;
};
inline constexpr std::string_view needs_at_stop_file = "ghost-at-stop.json";
// Where the head has gone ahead: fields of the metadata as of the stop.
inline constexpr std::string_view last_metadata_file = "ghost-last-metadata.json";
// Nothing: they were the same. `told`: what the head says, and whoever was asked before.
std::optional<NeedsAtStop> needs_at_stop(const TreeFacts& told, const TreeFacts& stopped);

}  // namespace ghost::core
