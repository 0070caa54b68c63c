// SPDX-License-Identifier: BSD-3-Clause
// What `ghost dup` and the `ghost receive` it starts on the other node say to each other
// (clone_line.hpp). docs/PROTOCOL.md has the tables.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/schema.hpp"
#include "ghost-core/engine/ghost_metadata.hpp"

namespace ghost::tools {

enum class ToReceiver : uint8_t { order, go };
extern const schema::Family to_receiver;

struct CloneOrder {
    std::string secret;
    std::optional<core::Needs> needs;
    std::string facts;
    bool clone = true;
    bool live = false;
    static const schema::Record table;
};
struct CloneGo {
    static const schema::Record table;
};

enum class FromReceiver : uint8_t { lacks, ready, held, running, failed };
extern const schema::Family from_receiver;

struct CloneLacks {
    std::vector<std::string> lines;
    static const schema::Record table;
};
struct CloneReady {
    std::string address;
    uint16_t port = 0;
    std::string token;
    static const schema::Record table;
};
struct CloneHeld {
    schema::Raw import;
    static const schema::Record table;
};
struct CloneRunning {
    pid_t pid = 0;
    static const schema::Record table;
};
struct CloneFailed {
    std::string why;
    static const schema::Record table;
};

}  // namespace ghost::tools
