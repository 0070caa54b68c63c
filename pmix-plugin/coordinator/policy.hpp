// SPDX-License-Identifier: BSD-3-Clause
// What the user asked for with regard to snapshots and moves (mpirun --mca ghost_...).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pmix-plugin/runtime/interface/runtime_adapter.hpp"
#include "pmix-plugin/settings/parameters.hpp"

namespace ghost::plugin {

struct SnapshotPolicy {
    int64_t interval_us = 0;     // 0: only on demand
    bool interval_auto = false;  // chosen from what snapshots cost, instead
    int64_t mtbf_us = 0;         // of the whole job; 0: a year for each node
    std::string folder;          // of snapshots, absolute
    std::string memory;          // the same in memory (tmpfs)
    std::string to = "disk";     // disk, memory, both, partner or xor:N, if nothing else is said
    int disk_every = 0;  // of those in memory only each so many-th goes to the disk too; 0: none
    size_t keep = 2;
    bool incremental = true;
    int full_every = 10;  // so many incremental ones, then a full one; 0: never a second full one
    std::string compress = "none";
    uint64_t rate = 0;       // bytes/s of each rank; 0: no limit
    uint64_t copy_rate = 0;  // bytes/s of each node to others; 0: no limit
    uint64_t carried = 0;    // bytes of a file open for writing, up to which its contents are saved
    std::string sign;        // file with the key that snapshots are signed with; empty: none are
    int signal = 0;          // that asks mpirun for a snapshot; 0: none
    size_t at_once = 0;      // operations on different ranks; 0: as the nodes' cores allow
    std::string mode = "auto";  // of moves, if nothing else is said: auto, live or stop
    uint64_t live_from = 0;     // auto: bytes of memory below which a rank moves by stop
    std::string restart;        // folder of the snapshot this job goes on from; empty: a new job
    Recover recover;            // from what the job goes on by itself
    int recover_most = 0;       // how often
    std::string signer;         // public key it has to be signed with; empty: it need not
};

// Reads the parameters; one that cannot be understood has its default, and a sentence in `wrong`.
SnapshotPolicy read_policy(const JobView& job, std::vector<std::string>& wrong);

// Where one snapshot goes: folders of snapshots.
struct SnapshotPlaces {
    std::string folder;
    std::string second = {};  // the same once more; empty: nowhere else
    bool partner = false;     // each node's part is copied to another
    uint32_t xor_of = 0;      // parity is made over groups of so many nodes; 0: none
};
// What a request means: "" as the parameters say, "disk", "memory", "both", "partner", "xor:N",
// else a path.
SnapshotPlaces places_for(const SnapshotPolicy& policy, const std::string& to);

}  // namespace ghost::plugin
