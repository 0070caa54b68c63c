// SPDX-License-Identifier: BSD-3-Clause
// What ghost-core reads of a ghost's metadata; what else is in them is of whoever made the ghost.
// Members that are not described are ignored, and each may be missing: ghosts are older and newer
// than who reads them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/json.hpp"
#include "base/schema.hpp"

namespace ghost::core {

// An exclusive lock of a file with a name.
struct NeededLock {
    std::string path;
    int32_t kind = 0;  // FileLock::Kind
    int64_t start = 0, bytes = 0;
    static const schema::Record table;
};

// What a tree needs where its ghost becomes a process, beside the files of its host facts.
struct Needs {
    uint64_t memory = 0;
    std::vector<std::string> folders = {}, pipes = {};  // each once, ascending
    int32_t descriptors = 0;
    std::map<std::string, uint64_t> removed = {}, limits = {};
    std::vector<std::string> spaces = {};
    std::vector<gid_t> groups = {};
    std::vector<NeededLock> locks = {};  // of one that is to move; the target has to see them
    static const schema::Record table;
};

// A standard descriptor of a process outside of MPI.
struct StdioEnd {
    std::string kind;  // "pipe", "tty", "socket", "null", "file", "closed"
    std::string key;  // criu's: "pipe:[inode]", "tty[rdev:dev]", "unix[inode]"; empty: none outside
    static const schema::Record table;
};

// The process that a ghost was made of, told from all others.
struct OriginalProcess {
    std::string host, boot, space;
    pid_t pid = 0;
    std::string start;
    static const schema::Record table;
};

// A tree outside of MPI.
struct PlainProcess {
    std::string command;  // program and arguments
    pid_t pid = 0, inner = 0;
    bool nested = true;
    std::vector<StdioEnd> stdio;
    OriginalProcess original;
    static const schema::Record table;
};

struct GhostMetadata {
    std::optional<PlainProcess> process;  // nothing: it is a rank's, say
    std::optional<Needs> needs;
    static const schema::Record table;
};

// Of all metadata those that a table describes, but for null, which some have written for nothing.
nlohmann::json described_in(const nlohmann::json& metadata, const schema::Record& table);
// corrupt: what is there is not as described.
Result<GhostMetadata> known_in(const nlohmann::json& metadata);

// "needs" in a ghost's metadata, if it has any, are these.
void put_needs(const std::optional<Needs>& needs, nlohmann::json& metadata);

}  // namespace ghost::core
