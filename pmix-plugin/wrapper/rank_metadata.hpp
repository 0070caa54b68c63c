// SPDX-License-Identifier: BSD-3-Clause
// What a rank's wrapper says in the metadata of its ghost, for the wrapper that makes a rank of it;
// "needs" beside it is ghost-core's. Members that are not described are ignored, and each may be
// missing: ghosts are older and newer than who reads them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

enum class StdStream : uint8_t {
    direct,  // the rank has the wrapper's own descriptor; it is /dev/null
    pipe,
    tty,
    merged,  // error only: the same as output
};
inline constexpr const char* stream_kinds[] = {"direct", "pipe", "tty", "merged"};
constexpr std::span<const char* const> names_of(StdStream) {
    return stream_kinds;
}

// A rank's standard input, output or error.
struct StandardEnd {
    StdStream kind = StdStream::direct;
    std::string key = {};                 // criu's, if it leads out of the tree
    schema::Bytes modes = {}, size = {};  // of a terminal: termios, winsize
    // Of output: all that the rank has written, and before what nothing is to be shown.
    std::optional<OutputPlace> place = {}, skips_to = {};
    static const schema::Record table;
};

struct RankStdio {
    StandardEnd input, output, error;
    bool is_open = false;  // input
    schema::Bytes unread = {};
    int64_t taken = 0;  // as Stdio::input_taken()
    static const schema::Record table;
};

// Memory that the rank shares.
struct SharedMapping {
    std::string id;
    std::string key;
    uint64_t size = 0;
    uint32_t mode = 0600;
    static const schema::Record table;
};

struct SharedMappings {
    std::vector<uint32_t> ranks;  // that have to be together
    std::vector<SharedMapping> memory;
    static const schema::Record table;
};

// A file that the rank had open for writing.
struct ListedFile {
    std::optional<std::string> path, path_hex;  // one of them
    uint64_t size = 0;
    std::optional<uint32_t> mode, owner, group;
    std::optional<schema::Bytes> contents;
    static const schema::Record table;
};

struct RankMetadata {
    std::optional<std::string> job = {};
    std::optional<uint32_t> rank = {};
    std::optional<uint64_t> seq = {};
    std::optional<std::string> snapshot = {};
    std::optional<AgentThread> agent = {};
    std::optional<RankStdio> stdio = {};
    std::optional<SharedMappings> shared = {};
    std::vector<ListedFile> files = {};
    static const schema::Record table;
};

// corrupt: what is there is not as described.
Result<RankMetadata> rank_metadata_in(const nlohmann::json& metadata);

}  // namespace ghost::plugin
