// SPDX-License-Identifier: BSD-3-Clause
// What a node agent and the process that copies ghosts for it (its child, `ghost-wrapper --copy`)
// say to each other, and two such processes of different nodes (docs/PROTOCOL.md, "Copies").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/schema.hpp"
#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

// --- N → K ---

enum class ToCopier : uint8_t { files, stream, send, take };
extern const schema::Family to_copier;

// More of what is to be sent: names in the folder of snapshots, "4711-000003/rank-1.ghost".
struct CopyFiles {
    std::vector<std::string> files;
    static const schema::Record table;
};
struct CopySend {
    std::string host;
    uint16_t port = 0;
    std::string token;
    std::string proof;
    std::string folder;
    uint64_t rate = 0;
    static const schema::Record table;
};
struct CopyTake {
    std::string proof;
    std::string folder;
    std::string interfaces;
    static const schema::Record table;
};

// --- K → N ---

enum class FromCopier : uint8_t { listens, progress, done };
extern const schema::Family from_copier;

struct CopyListens {
    std::string host;
    uint16_t port = 0;
    std::string token;
    static const schema::Record table;
};
struct CopyProgress {
    uint64_t bytes = 0;
    uint64_t total = 0;
    static const schema::Record table;
};
struct CopyDone {
    std::string why;
    static const schema::Record table;
};

// --- K ↔ K ---

enum class BetweenCopiers : uint8_t { list, wanted, kept };
extern const schema::Family between_copiers;

struct CopyItem {
    std::string name;
    uint64_t bytes = 0;
    std::string tail;  // hash of its last bytes, hex
    std::optional<XorTarget> target = {};
    static const schema::Record table;
};
struct CopyList {
    std::vector<CopyItem> items;
    static const schema::Record table;
};
struct CopyWanted {
    std::vector<uint32_t> which;
    std::string why;
    static const schema::Record table;
};
struct CopyKept {
    std::string why;
    static const schema::Record table;
};

}  // namespace ghost::plugin
