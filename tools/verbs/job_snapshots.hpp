// SPDX-License-Identifier: BSD-3-Clause
// Snapshots of MPI jobs as the verbs see them: which one a path means, and whether it can be used.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "tools/ghost_files.hpp"
#include "tools/job_client.hpp"
#include "tools/paths.hpp"

namespace ghost::tools {

// A snapshot of a job, or a folder in which there are some; else it is of processes, or nothing.
bool means_job(const std::string& path);
// One snapshot (complete or not), no folder of them.
bool is_snapshot(const std::string& path);

// The row of `ghost snapshots`: {"name", "path", "whole", "why", and of the manifest "time",
// "kind", "ranks", "bytes", "pause_us", "total_us", "job", "epoch", "nodes"}.
Json snapshot_row(const plugin::Snapshot& snapshot);

// That every byte of the ghosts of a snapshot and of their parents is what was written, and that
// the manifest's digests are theirs. Names the first rank whose ghost is not. With a `signer`, who
// has signed the manifest, each has to be signed as that says.
using Signer = std::optional<PublicKey>;
Status verify_ghosts(const plugin::Snapshot& snapshot, Verifier& verifier, const Signer& signer);

// The snapshot that `path` means for a restart, each byte of it verified. A folder means the newest
// whole one of the job that was saved last; one that is damaged is named on standard error, and the
// one before it is taken. A snapshot itself that is damaged is refused, with the one before it if
// there is a whole one.
Result<plugin::Snapshot> choose_snapshot(const std::string& path, Verifier& verifier,
                                         const Signer& signer);

// `ghost checkpoint` of a whole MPI job: asks its coordinator and shows what it does.
// `to`: a folder, "memory", "" for the job's own; `then` as on the command line; `sign`: a file
// with the key, "" as the job's parameters say. Returns the exit status.
int checkpoint_job(const Job& job, const std::string& to, const std::string& then,
                   const std::string& sign, bool json);

// `ghost restart` of a whole MPI job: this process becomes the mpirun that takes it up again.
struct JobRestart {
    std::string snapshot;              // its folder, or the folder of snapshots
    std::vector<std::string> options;  // for mpirun
    bool replace = false;              // end the job first if it still runs
    bool keep_longer = false;          // keep a copy of files that are cut back
    std::string signer;  // file with the key it has to be signed with; empty: it need not
    bool json = false;
};

// Returns only after a refusal, with the exit status; nothing has been started then.
int restart_job(const JobRestart& args);

// What a restart of a job needs and does not find on this node; everything in one list, before
// anything is started.
struct Shortcomings {
    std::vector<std::string> here;  // refused
    // Of nodes where ranks may start that are not this one: only their own look can tell. They
    // look before any rank runs.
    std::vector<std::string> perhaps;
};

// `elsewhere`: hosts were named, so that this node may get no rank at all.
Shortcomings find_shortcomings(const plugin::Snapshot& snapshot, const Paths& paths, bool elsewhere,
                               const Signer& signer);

}  // namespace ghost::tools
