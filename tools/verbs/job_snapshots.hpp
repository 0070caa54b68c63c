// SPDX-License-Identifier: BSD-3-Clause
// Snapshots of MPI jobs as the verbs see them: which one a path means, and whether it can be used.
#pragma once

#include <string>

#include "base/result.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "tools/ghost_verifier.hpp"

namespace ghost::tools {

// A snapshot of a job, or a folder in which there are some; else it is of processes, or nothing.
bool means_job(const std::string& path);
// One snapshot (complete or not), no folder of them.
bool is_snapshot(const std::string& path);

// The row of `ghost snapshots`: {"name", "path", "whole", "why", and of the manifest "time",
// "kind", "ranks", "bytes", "pause_us", "total_us", "job", "epoch", "nodes"}.
Json snapshot_row(const plugin::Snapshot& snapshot);

// That every byte of the ghosts of a snapshot and of their parents is what was written, and that
// the manifest's digests are theirs. Names the first rank whose ghost is not.
Status verify_ghosts(const plugin::Snapshot& snapshot, Verifier& verifier);

// The snapshot that `path` means for a restart, each byte of it verified. A folder means the newest
// whole one of the job that was saved last; one that is damaged is named on standard error, and the
// one before it is taken. A snapshot itself that is damaged is refused, with the one before it if
// there is a whole one.
Result<plugin::Snapshot> choose_snapshot(const std::string& path, Verifier& verifier);

}  // namespace ghost::tools
