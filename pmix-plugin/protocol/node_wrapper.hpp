// SPDX-License-Identifier: BSD-3-Clause
// What a node agent and the wrappers of its ranks say to each other (docs/PROTOCOL.md, "N and W").
#pragma once

#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

// Both ends are of one installation; another build is refused.
inline constexpr uint32_t wrapper_protocol = 1;

// --- wrapper to node agent ---

enum class FromWrapper : uint8_t {
    hello,
    exit,
    stdin_taken,
    stdin_closed,
    output,
    progress,
    failed,
    ready,
    connected,
    sketched,
    converged,
    exported,
    gone,
    checked,
    held,
    snap_ready,
    snap_captured,
    snap_written,
    snap_cancelled,
    still,
};
extern const schema::Family from_wrapper;

enum class WrapperMode : uint8_t { run, adopt, restore, restart, direct };
inline constexpr const char* wrapper_mode_names[] = {"run", "adopt", "restore", "restart",
                                                     "direct"};
constexpr std::span<const char* const> names_of(WrapperMode) {
    return wrapper_mode_names;
}

enum class Role : uint8_t { wrapper, rank };
inline constexpr const char* role_names[] = {"wrapper", "rank"};
constexpr std::span<const char* const> names_of(Role) {
    return role_names;
}

// What the hello of a wrapper and that of a rank's agent have in common: whose it is.
struct Greeting {
    Role role = Role::wrapper;
    std::string job;
    uint32_t rank = 0;
    std::string secret;  // a rank's agent shows it; a wrapper is told it when it needs it
    std::string life;
    static const schema::Record table;
};
enum class FirstMessage : uint8_t { hello, secret };
extern const schema::Family first_messages;

struct WrapperHello {
    Role role = Role::wrapper;
    uint32_t version = wrapper_protocol;
    std::string job;
    uint32_t rank = 0;
    std::string life;
    int32_t pid = 0;
    int32_t init = 0;
    WrapperMode mode = WrapperMode::run;
    std::string why;
    static const schema::Record table;
};
struct Exit {
    int32_t status = 0;
    static const schema::Record table;
};
struct StdinTaken {
    int64_t bytes = 0;
    static const schema::Record table;
};
// Of this wrapper's rank, since the wrapper began: all of it has been given to the runtime.
struct OutputGiven {
    OutputPlace output, error;
    static const schema::Record table;
};
struct StdinClosed {
    static const schema::Record table;
};
// A live move: the skeleton is taken, the tree may run.
struct Sketched {
    uint64_t seq = 0;
    static const schema::Record table;
};
struct Gone {
    uint64_t seq = 0;
    static const schema::Record table;
};
struct Checked {
    uint64_t seq = 0;
    std::vector<SharedPart> shared = {};
    static const schema::Record table;
};
struct SnapReady {
    uint64_t seq = 0;
    bool direct = false;
    uint64_t memory = 0;
    std::string kind = "full";
    std::vector<SharedPart> shared = {};
    static const schema::Record table;
};
struct Still {
    uint64_t seq = 0;
    static const schema::Record table;
};
struct SnapCaptured {
    uint64_t seq = 0;
    int64_t pause_us = 0;
    int64_t skeleton_us = 0;
    int64_t memory_us = 0;
    uint64_t last_bytes = 0;
    uint64_t rounds = 0;
    static const schema::Record table;
};
struct SnapCancelled {
    uint64_t seq = 0;
    static const schema::Record table;
};

// --- node agent to wrapper ---

enum class ToWrapper : uint8_t {
    prepare,
    connect,
    export_tree,
    cancel,
    wake,
    resume,
    go,
    die,
    abort,
    child_status,
    bye,
    adopt,
    import,
    snap_prepare,
    snap_freeze,
    snap_write,
    snap_cancel,
    snap_end,
    share,
};
extern const schema::Family to_wrapper;

struct Export {
    uint64_t seq = 0;
    std::vector<uint32_t> unit = {};      // as of SnapFreeze
    std::vector<std::string> saves = {};  // the same
    static const schema::Record table;
};
struct Cancel {
    uint64_t seq = 0;
    static const schema::Record table;
};
// A live move: the rank runs on while its memory is copied.
struct Wake {
    uint64_t seq = 0;
    std::optional<AgentThread> agent;
    static const schema::Record table;
};
struct Resume {
    uint64_t seq = 0;
    std::optional<AgentThread> agent;
    static const schema::Record table;
};
struct Die {
    uint64_t seq = 0;
    static const schema::Record table;
};
struct ChildStatus {
    int32_t status = 0;
    static const schema::Record table;
};
struct Bye {
    static const schema::Record table;
};
struct Adopt {
    uint32_t rank = 0;
    int32_t init = 0;
    int64_t stdin_bytes = -1;
    static const schema::Record table;
};
// With the files that take the place of shared memory, a descriptor for each id.
struct Import {
    uint64_t seq = 0;
    std::vector<std::string> shared = {};
    bool more = false;  // files follow: nothing begins yet
    static const schema::Record table;
};
struct SnapPrepareRank {
    uint64_t seq = 0;
    std::string folder;
    std::string second;
    std::string file;
    std::string name;
    std::optional<AgentThread> agent;
    bool incremental = false;
    std::string compress = "none";
    uint64_t rate = 0;
    uint64_t carried = 64 << 10;
    Then then = Then::go_on;
    uint64_t memory = 0;
    uint64_t sharers = 1;
    bool sign = false;
    std::vector<SharedPart> shared = {};  // as of Connect
    static const schema::Record table;
};
struct SnapFreeze {
    uint64_t seq = 0;
    std::optional<AgentThread> agent;
    std::vector<uint32_t> unit = {};      // the rank and all it shares memory with; none: nobody
    std::vector<std::string> saves = {};  // what of that memory this rank's ghost has
    static const schema::Record table;
};
struct Share {
    uint64_t seq = 0;
    static const schema::Record table;
};
struct SnapWrite {
    uint64_t seq = 0;
    static const schema::Record table;
};
struct SnapCancel {
    uint64_t seq = 0;
    static const schema::Record table;
};
struct SnapEndRank {
    uint64_t seq = 0;
    bool keep = false;
    static const schema::Record table;
};

}  // namespace ghost::plugin
