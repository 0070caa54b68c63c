// SPDX-License-Identifier: BSD-3-Clause
// The manifest of a snapshot of a job: what docs/SNAPSHOT_FORMAT.md says, as plain data, read and
// written by one table (base/schema.hpp).
//
// Written once, by the coordinator, when every ghost is on its disk; read by `ghost restart` and by
// the wrappers of the restarted ranks. Nothing here keeps state: any thread. Reading and writing
// block on the disk.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/control_socket.hpp"
#include "base/result.hpp"
#include "base/schema.hpp"
#include "base/signing.hpp"
#include "pmix-plugin/snapshots/parity.hpp"

namespace ghost::plugin {

inline constexpr int manifest_format = 1;
inline constexpr const char* manifest_file = "manifest.json";
inline constexpr const char* secret_file = "secret";
// ghost_checkpoint_files at most: they are in a ghost's metadata, whose size is limited
// (ghost-core/format/reader.cpp), and a third longer there.
inline constexpr uint64_t most_carried = 32 << 20;

struct Manifest {
    struct Job {
        std::string name;  // its number in decimal
        uint64_t epoch = 0;
        uint64_t ranks = 0;  // manifest_json() fills it in
        uint32_t uid = 0;
        static const schema::Record table;
    };
    struct Runtime {
        std::string name, version;
        std::string pmix;  // its version
        static const schema::Record table;
    };
    struct App {
        std::vector<std::string> argv;
        uint32_t np = 0;
        std::string cwd;
        static const schema::Record table;
    };
    struct Mpirun {
        std::vector<std::string> argv;
        std::string cwd;
        std::map<std::string, std::string> parameters;  // ghost_… that the user had set
        static const schema::Record table;
    };
    struct Input {  // mpirun's standard input
        uint32_t rank = 0;
        std::string path;  // empty: it was no regular file
        uint64_t offset = 0;
        static const schema::Record table;
    };
    struct Node {
        uint32_t id = 0;
        std::string name;
        int slots = 0;
        static const schema::Record table;
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
        // Public key, hex, that its ghost and those of `chain` are signed with.
        std::optional<std::string> signer = {};
        std::optional<std::string> copy =
            {};  // another node that has its file and those of `chain`
        static const schema::Record table;
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
            static const schema::Record table;
        };
        std::optional<Copy> copy = {};
        // Else what the rank that looked last saw, if there is one such file: what has been
        // overwritten since is not what the ranks wrote.
        struct Begin {
            uint64_t size = 0;
            std::string hash;      // core::contents_hash()
            int64_t modified = 0;  // ns, core::FileBegin::modified_ns
            static const schema::Record table;
        };
        std::optional<Begin> begin = {};
        static const schema::Record table;
    };

    struct Parity {
        std::vector<ParitySet> groups;
        static const schema::Record table;
    };

    // By whom, and what: the whole of it, and the job's secret.
    struct Signed {
        std::string signer;     // public key, hex
        std::string secret;     // short_hash() of it, hex
        std::string signature;  // hex
        static const schema::Record table;
    };

    int64_t format = manifest_format;
    std::string version;  // of Ghost; manifest_json() fills it in
    std::string name;     // the folder's, JOB-NNNNNN
    std::string time;     // UTC, "2025-01-31T23:59:59.123456Z"
    std::string kind;     // "full" or "incremental" (any rank is)
    int64_t pause_us = 0, total_us = 0;
    uint64_t bytes = 0;
    Job job;
    Runtime runtime;
    std::vector<App> apps;
    Mpirun mpirun;
    Input input;
    std::vector<Node> nodes;
    std::vector<Rank> ranks;  // one for each rank of the job, ascending
    std::vector<File> files;
    std::optional<Parity> parity = {};
    std::optional<Signed> signature = {};
    std::string digest;  // manifest_json() fills it in
    static const schema::Record table;

    // The row of a rank; nullptr: there is none.
    const Rank* find(uint32_t rank) const;
};

// What the runtime knows of a job that is saved.
struct JobDescription {
    // Which application a rank is of, and what it is bound to.
    struct Place {
        uint32_t rank = 0;
        uint32_t app = 0;
        std::string binding;
        static const schema::Record table;
    };
    Manifest::Runtime runtime;
    std::vector<Manifest::App> apps;
    Manifest::Mpirun mpirun;
    Manifest::Input input;  // its offset is where mpirun began to read
    std::vector<Manifest::Node> nodes;
    std::vector<Place> ranks;
    static const schema::Record table;
};

// "2025-01-31T23:59:59.123456Z" of now.
std::string utc_now();

// The object as it is written. A path or argument that is no UTF-8 becomes {"hex": "…"}.
Json manifest_json(Manifest manifest);
// The digest an object should have: XXH3-64 over it without that field, 16 hex digits.
std::string manifest_digest(const Json& object);
// Checks everything that can be wrong about the object itself. unsupported: of a newer format;
// corrupt: the digest is another, a field is missing, of another type or contradicts another
// (`object` says which).
Result<Manifest> manifest_from(const Json& object);

// Signs what manifest_json() makes of it, and the secret; says which key each ghost is signed with.
// corrupt: a ghost is not signed.
Status sign_manifest(Manifest& manifest, const SigningKey& key, const std::string& secret);
// refused: it is not signed by the owner of this key; a signature is not looked at otherwise.
Status check_signature(const Json& object, const PublicKey& signer);
// refused: it is another one than was signed.
Status check_secret(const Manifest& manifest, const std::string& secret);

// Reads FOLDER/manifest.json. not_found: there is none (the snapshot is not complete); corrupt: cut
// off or damaged, with the reason; unsupported: newer; refused: another user may have written it
// (base/own_file.hpp; so does everything here that opens a file), or it is not signed by `signer`.
// `folder` is the snapshot's.
Result<Manifest> read_manifest(const std::string& folder,
                               const std::optional<PublicKey>& signer = std::nullopt);
// Writes FOLDER/manifest.json, mode 0600, and syncs it.
Status write_manifest(const std::string& folder, const Manifest& manifest);

// FOLDER/secret, mode 0600, synced: the job's secret, 64 hex digits.
Status write_secret(const std::string& folder, const std::string& secret);
Result<std::string> read_secret(const std::string& folder);

}  // namespace ghost::plugin
