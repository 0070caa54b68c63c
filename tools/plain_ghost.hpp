// SPDX-License-Identifier: BSD-3-Clause
// Export and import of a process outside of MPI, as the verbs do it: with progress, with a rule for
// the original, and so that it lives exactly once whatever fails.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "ghost-core/supervisor/departure.hpp"
#include "ghost-core/supervisor/stdio_ends.hpp"
#include "tools/plain.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {

using core::Then;
Result<Then> then_named(const std::string& name);

struct Exported {
    core::PlainTree tree;
    core::ExportStats stats;
};

// How an original that goes on is taken: `concurrent`, it runs while its memory is copied and
// written, and is frozen for some milliseconds only; `stop`, it is frozen until all is written,
// which needs no memory for a copy and is over sooner.
enum class Mode { concurrent, stop };
Result<Mode> mode_named(const std::string& name);

// The tree that `pid` means. An ordinary user's command goes into the tree's user name space, and
// its programs with it: call it while this process has one thread, and before anything of the tree
// is judged.
Result<core::PlainTree> reach_plain(pid_t pid);

// What becomes of the original is decided when its ghost is complete, while it is frozen. `guard`
// lets it go on if this process is killed; who gives it away to somebody else dismisses it first.
using Settle = std::function<Result<Then>(const Exported&, core::Guard& guard)>;

// Exports the tree that `pid` means to `out` (not yet init()ed), shows progress, and does with the
// original as `then` or, if given, `settle` says. After any failure, also of settle, it runs on. A
// concurrent one goes on before settle is asked.
Result<Exported> export_plain(pid_t pid, core::Resource& out, Then then, Mode mode,
                              const Settle& settle = {});

void add_mode(CommandLine app, std::string& mode);

// A tree that is about to leave; it is not interrupted any more but where it looks for that.
Result<core::Departure> begin_departure(pid_t pid);

// The ghost's figures, for --json and for people.
Json export_json(const Exported& exported);

struct ImportOptions {
    bool detach = false;   // return when it runs; it goes on without this terminal
    bool replace = false;  // end an original that still runs; else that is a refusal
    bool check_original = false;
    bool clone = false;  // tell it that it is one (core::mark_clone)
    bool json = false;
};

// Makes a process from the ghost that `in` gives and lives as its parent: returns only after a
// failure, with the exit status; else this process ends as the program does.
int import_plain(const std::function<Result<std::unique_ptr<core::Resource>>()>& in,
                 const ImportOptions& options);

// A held tree, step by step, for who decides later: import_plain() and the receiver of a clone.
class Arrival {
  public:
    // Opens the ghost, refuses what cannot live here with one report of everything, and makes the
    // tree, which is frozen.
    static Result<std::unique_ptr<Arrival>> make(std::unique_ptr<core::Resource> in,
                                                 const ImportOptions& options);
    ~Arrival();  // a tree that was not let go is destroyed
    // The original is ended (if asked), the tree runs.
    Status let_go();
    // After let_go(): as attend(), and all output has arrived.
    int attend(const core::Signals& signals);
    const core::PlainTree& tree() const { return tree_; }
    Json json() const;

  private:
    explicit Arrival(ImportOptions options) : options_(options) {}
    Status check(core::Importer& importer);
    Status check_number(pid_t wanted) const;
    Status end_original();

    core::WorkFolder folder_;
    ImportOptions options_;
    std::unique_ptr<core::Resource> in_;
    core::PlainProcess process_;
    pid_t original_ = 0;
    core::StdioEnds stdio_;
    core::HeldTree held_;
    core::PlainTree tree_;
    core::Guard guard_;
};

}  // namespace ghost::tools
