// SPDX-License-Identifier: BSD-3-Clause
// The manifest of a snapshot of a job: what docs/SNAPSHOT_FORMAT.md says, as plain data.
//
// Written once, by the coordinator, when every ghost is on its disk; read by `ghost restart` and by
// the wrappers of the restarted ranks. Nothing here keeps state: any thread. Reading and writing
// block on the disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "base/result.hpp"

namespace ghost::plugin {

inline constexpr int manifest_format = 1;
inline constexpr const char* manifest_file = "manifest.json";
inline constexpr const char* secret_file = "secret";

struct Manifest {
    struct App {
        std::vector<std::string> argv;
        uint32_t np = 0;
        std::string cwd;
    };
    struct Parameter {  // a ghost_... parameter the user had set
        std::string name;
        std::string value;
    };
    struct Input {  // mpirun's standard input
        uint32_t rank = 0;
        std::string path;  // empty: it was no regular file
        uint64_t offset = 0;
    };
    struct Node {
        uint32_t id = 0;
        std::string name;
        int slots = 0;
    };
    struct Rank {
        uint32_t rank = 0;
        uint32_t app = 0;     // index into apps
        std::string node;     // where it ran, and on node-local folders where its file is
        std::string binding;  // as the runtime names it; empty: not bound or unknown
        std::string file;     // in the snapshot's folder
        std::string kind;     // "full" or "incremental"
        // Files of the ghosts it is based on, nearest first, relative to the folder of snapshots
        // ("4711-000002/rank-1.ghost"); empty if full.
        std::vector<std::string> chain;
        std::string digest;       // the ghost's own, as in its end
        uint64_t bytes = 0;       // of the file
        uint64_t page_bytes = 0;  // of memory in the ghost
        uint64_t memory = 0;      // of the rank's tree: what a restart needs
        int64_t pause_us = 0;
    };
    struct File {  // a regular file that was open for writing
        std::string path;
        uint64_t size = 0;  // the largest any of the ranks saw
        std::vector<uint32_t> ranks;
        // Whose ghost has what was in it, if the rank that looked last has: everybody's that has
        // the file open.
        struct Copy {
            uint32_t rank = 0;
            uint64_t size = 0;
            std::string hash;  // core::FileContents::hash()
        };
        std::optional<Copy> copy = {};
    };

    std::string version;  // of Ghost; write_manifest() fills it in
    std::string name;     // the folder's, JOB-NNNNNN
    std::string time;     // UTC, "2025-01-31T23:59:59.123456Z"
    std::string kind;     // "full" or "incremental" (any rank is)
    int64_t pause_us = 0, total_us = 0;
    uint64_t bytes = 0;
    std::string job;  // its number in decimal
    uint64_t epoch = 0;
    uint32_t uid = 0;
    std::string runtime, runtime_version, pmix_version;
    std::vector<App> apps;
    std::vector<std::string> mpirun_argv;
    std::string mpirun_cwd;
    std::vector<Parameter> parameters;
    Input input;
    std::vector<Node> nodes;
    std::vector<Rank> ranks;  // one for each rank of the job, ascending
    std::vector<File> files;

    // The row of a rank; nullptr: there is none.
    const Rank* find(uint32_t rank) const;
};

// "2025-01-31T23:59:59.123456Z" of now.
std::string utc_now();

// The object with its `digest` and `version` set. A path or argument that is no UTF-8 becomes
// {"hex": "…"}.
Json manifest_json(const Manifest& manifest);
// The digest an object should have: XXH3-64 over it without that field, 16 hex digits.
std::string manifest_digest(const Json& object);
// Checks everything that can be wrong about the object itself. unsupported: of a newer format;
// corrupt: the digest is another, a field is missing, of another type or contradicts another
// (`object` says which).
Result<Manifest> manifest_from(const Json& object);

// Reads FOLDER/manifest.json. not_found: there is none (the snapshot is not complete); corrupt: cut
// off or damaged, with the reason; unsupported: newer; refused: another user may have written it
// (base/own_file.hpp; so does everything here that opens a file). `folder` is the snapshot's.
Result<Manifest> read_manifest(const std::string& folder);
// Writes FOLDER/manifest.json, mode 0600, and syncs it.
Status write_manifest(const std::string& folder, const Manifest& manifest);

// FOLDER/secret, mode 0600, synced: the job's secret, 64 hex digits.
Status write_secret(const std::string& folder, const std::string& secret);
Result<std::string> read_secret(const std::string& folder);

}  // namespace ghost::plugin
