// SPDX-License-Identifier: BSD-3-Clause
// A tree outside of MPI that leaves its system, in whatever way: the verbs' exports and libghost's.
//
//   auto departure = Departure::begin(pid, criu);       nobody else exports it meanwhile
//   auto guard = departure->guard();                    it goes on if this process is killed
//   auto request = departure->request();
//   export_tree(*request, out);                         stop and copy
//   checkpointer.run(checkpoint_request(*request), out);   while it runs
//   live_export(live_request(*request, order), link);      to a target that makes it meanwhile
//   deal_with_original(departure->tree, then);
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/engine/checkpoint.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/engine/plain.hpp"
#include "ghost-core/supervisor/guard.hpp"
#include "ghost-core/supervisor/work_folder.hpp"

namespace ghost::core {

// One thread.
struct Departure {
    PlainTree tree;
    Fd turn;
    WorkFolder folder;
    CriuSettings criu;

    // `program`: criu. refused: everything that keeps the tree from being exported; busy: somebody
    // else has exported it for ten seconds.
    static Result<Departure> begin(pid_t pid, const std::string& program);
    Result<Guard> guard() const;
    // What to export, with a criu that is warm.
    Result<ExportRequest> request(Ghosts ghosts = Ghosts::are_kept) const;
};

// Everything that keeps the tree from being exported as one Error; nothing if it can be.
Status check_exportable(const PlainTree& tree);

// Everything for which an import of it on this node would be refused, found as the import finds it,
// as one Error: before there is a ghost, on the strength of which an original is ended. Memory and
// space on disks do not count, which an original gives back, nor what it has for a moment only; the
// request gets the newest facts. Nothing if the ghost goes to another node at once, which says so
// itself.
Status check_importable_here(ExportRequest& request, const Resource& out);

// Whether a copy of the tree's memory fits in beside it.
bool has_room(const ExportRequest& request);
// Bytes that the tree had in use when it was looked at.
uint64_t memory_of(const ExportRequest& request);

// The same export in other ways.
CheckpointRequest checkpoint_request(const ExportRequest& request);
LiveExportRequest live_request(const ExportRequest& request, PageOrder order);
ExportStats export_stats(const CheckpointStats& made);

// What becomes of the original once its ghost is complete; it stands still until then.
enum class Then { go_on, stop, kill };
Status deal_with_original(const PlainTree& tree, Then then);

}  // namespace ghost::core
