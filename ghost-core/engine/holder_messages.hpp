// SPDX-License-Identifier: BSD-3-Clause
// What the holder of ghosts in memory (holder.hpp) and its clients say to each other; each request
// has one answer. docs/PROTOCOL.md has the tables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/schema.hpp"

namespace ghost::core {

enum class ToHolder : uint8_t { spare, keep, get, list, drop, stop };
extern const schema::Family to_holder;

struct AskSpare {
    uint64_t bytes = 0;
    static const schema::Record table;
};
// Comes with the memory's descriptor.
struct KeepGhost {
    std::string name;
    uint64_t bytes = 0;
    uint64_t parts = 0;
    uint64_t parts_at = 0;
    schema::Raw about;
    static const schema::Record table;
};
struct GetGhost {
    std::string name;
    static const schema::Record table;
};
struct ListGhosts {
    static const schema::Record table;
};
struct DropGhost {
    std::string name;
    static const schema::Record table;
};
struct StopHolder {
    static const schema::Record table;
};

enum class FromHolder : uint8_t { spare, none, kept, ghost, list, dropped, stopped, error };
extern const schema::Family from_holder;

// Comes with the memory's descriptor.
struct LentSpare {
    uint64_t capacity = 0;
    static const schema::Record table;
};
struct NoSpare {
    static const schema::Record table;
};
struct GhostKept {
    static const schema::Record table;
};
// Comes with the memory's descriptor.
struct LentGhost {
    std::string name;
    uint64_t bytes = 0;
    uint64_t parts = 0;
    uint64_t parts_at = 0;
    schema::Raw about;
    static const schema::Record table;
};
struct ListedGhost {
    std::string name;
    uint64_t bytes = 0;
    schema::Raw about;
    static const schema::Record table;
};
struct GhostList {
    std::vector<ListedGhost> ghosts;
    static const schema::Record table;
};
struct GhostDropped {
    static const schema::Record table;
};
struct HolderStopped {
    static const schema::Record table;
};

}  // namespace ghost::core
