// SPDX-License-Identifier: BSD-3-Clause
// The folder of snapshots (docs/SNAPSHOT_FORMAT.md): names, and the steps that make a snapshot
// complete or absent whatever happens. On node-local folders each node takes the same steps with
// its own part. No state is kept: any thread. Everything here blocks on the disk, remove_snapshot()
// and commit_snapshot() possibly for long.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {

struct SnapshotName {
    std::string job;
    uint64_t number = 0;
    bool partial = false;  // being made, or left behind by one that was not completed
};

// "4711-000003".
std::string snapshot_name(const std::string& job, uint64_t number);
// "4711-000003.partial" while it is being made or removed; by a job "4711-000003.LIFE.partial": an
// earlier life that still writes has the same numbers.
std::string partial_name(const std::string& name, const std::string& life = {});
std::optional<SnapshotName> parse_snapshot_name(const std::string& name);
// "rank-3.ghost", with compression "lz4" "rank-3.ghost.lz4", with "zstd" "rank-3.ghost.zst".
std::string rank_file(uint32_t rank, const std::string& compression = "none");
// The event log of a job, in the folder of snapshots.
std::string events_file(const std::string& folder, const std::string& job);
// More lines of it (events/event.hpp); created with mode 0600.
Status append_event(const std::string& folder, const std::string& job, const std::string& lines);

// FOLDER/JOB.lock, which mpirun holds from its first snapshot or its restart for as long as it
// lives, so that nobody restarts the job beside it, from any node that shares the folder. Closing
// gives it up. busy: somebody has it, `object` says who (what they gave as `who`).
Result<Fd> lock_job(const std::string& folder, const std::string& job, const std::string& who,
                    const std::string& life = {});
// Whether it still is what lock_job() has made of it: a file server that was out of reach gives it
// to somebody else, and a folder may be made anew.
bool holds_job(const Fd& lock, const std::string& folder, const std::string& job,
               const std::string& who, const std::string& life);
// "mpirun 4711 on gn1" of this process, for `who`.
std::string name_of_this(const std::string& program);

// Folders of snapshots in this node's memory are named so, with a random part (base/own_file.hpp).
std::string memory_snapshots();
// Makes the folder of snapshots (0700, parents as needed) if it is missing, and says its real path.
// refused: another user has made it, or others may write to it (base/own_file.hpp).
Result<std::string> open_snapshot_folder(const std::string& folder);
// One more than the highest number of the job there, complete or not; 1 in an empty or no folder.
uint64_t next_snapshot_number(const std::string& folder, const std::string& job);
// Makes the folder partial_name() (0700) and says its path; what other parties of the same snapshot
// have made there already is kept. Incomplete snapshots of that job with other names are removed.
Result<std::string> create_partial(const std::string& folder, const std::string& name,
                                   const std::string& life = {});
// Syncs that folder, renames it to NAME and syncs FOLDER: from then on it is complete. What is in
// its files must have been synced by whoever wrote them. Done already: success.
Status commit_snapshot(const std::string& folder, const std::string& name,
                       const std::string& life = {});
// Removes that folder, if there is one.
Status discard_partial(const std::string& folder, const std::string& name,
                       const std::string& life = {});
// Removes a complete snapshot; renamed first, so that one half removed is never taken for damaged.
Status remove_snapshot(const std::string& folder, const std::string& name);

// What is known of a snapshot without reading its ghosts.
struct Snapshot {
    std::string name;
    std::string path;  // its folder
    SnapshotName parts;
    bool whole = false;
    std::string why;  // not whole: what is wrong, one sentence
    // Nodes whose ranks' ghosts are not here at all: on folders of their own. They must be brought
    // together before a restart (`ghost gather`).
    std::vector<std::string> away;
    // Empty if it could not be read.
    std::optional<Manifest> manifest;
};

// One snapshot's folder: its manifest, and check_files(). One that `signer` has not signed is not
// whole.
Snapshot look_at_snapshot(const std::string& path,
                          const std::optional<PublicKey>& signer = std::nullopt);
// All complete ones of a folder (of one job, or of all if `job` is empty), newest first by the time
// of their manifests (those without one by their number). not_found: no such folder.
Result<std::vector<Snapshot>> list_snapshots(const std::string& folder, const std::string& job = {},
                                             const std::optional<PublicKey>& signer = std::nullopt);
// That every ghost of the manifest and of its chains is there with the size it was written with;
// what is inside is for `ghost verify`. `folder` is the snapshot's. Names what is missing, but for
// nodes other than mpirun's of which nothing is here: those are listed in `away`.
Status check_files(const std::string& folder, const Manifest& manifest,
                   std::vector<std::string>& away);

// Which of them go when `keep` complete ones of the job are to stay: the oldest, damaged ones too,
// but never one that a kept one's chain needs, and never all whole ones.
std::vector<std::string> removable(const std::vector<Snapshot>& snapshots, const std::string& job,
                                   size_t keep);

}  // namespace ghost::plugin
