// SPDX-License-Identifier: BSD-3-Clause
// What the `ghost` command and a job's coordinator say to each other (docs/PROTOCOL.md, "T → C").
#pragma once

#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

// Why nothing can come of a request any more, whoever finds that out: the coordinator, of what
// waits or is under way, or the command. Nothing is harmed by it: exit status 1.
inline constexpr const char* job_has_ended = "the job has ended";

// --- the command to the coordinator ---

enum class ToCoordinator : uint8_t { ps, migrate, checkpoint, cancel, drain, grow };
extern const schema::Family to_coordinator;

struct PsRequest {
    static const schema::Record table;
};
struct MigrateRequest {
    std::vector<uint32_t> ranks;
    std::string to;
    std::optional<std::string> mode;
    std::optional<bool> with_sharers;
    std::optional<std::string> all_from = {};
    static const schema::Record table;
};
struct CheckpointRequest {
    std::string to;
    Then then = Then::go_on;
    std::string sign = {};
    static const schema::Record table;
};

struct CancelRequest {
    std::optional<uint64_t> id;
    static const schema::Record table;
};

struct DrainRequest {
    std::string node;
    std::vector<std::string> to;
    std::optional<std::string> mode;
    static const schema::Record table;
};

struct GrowRequest {
    std::string node;
    int32_t slots = 1;
    static const schema::Record table;
};

// --- the coordinator to the command ---

enum class FromCoordinator : uint8_t { result, progress, error };
extern const schema::Family from_coordinator;

// What became of a request: the last message about it.
struct RequestResult {
    int32_t exit = 0;
    schema::Raw result;
    std::optional<std::string> error;
    static const schema::Record table;
};
struct RequestProgress {
    std::optional<uint32_t> rank;
    std::string phase;
    uint64_t bytes = 0;
    uint64_t total = 0;
    static const schema::Record table;
};

}  // namespace ghost::plugin
