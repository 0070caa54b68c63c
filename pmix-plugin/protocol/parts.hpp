// SPDX-License-Identifier: BSD-3-Clause
// What several messages between the parties of a job have in common (docs/PROTOCOL.md).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/schema.hpp"

namespace ghost::plugin {

// What follows a snapshot.
enum class Then : uint8_t { go_on, stop, kill };
inline constexpr const char* then_names[] = {"continue", "stop", "kill"};
constexpr std::span<const char* const> names_of(Then) {
    return then_names;
}
std::optional<Then> then_named(std::string_view name);

// What PMIx_Job_control asks for.
enum class ControlAct : uint8_t { checkpoint, migrate, drain };
inline constexpr const char* control_act_names[] = {"checkpoint", "migrate", "drain"};
constexpr std::span<const char* const> names_of(ControlAct) {
    return control_act_names;
}
constexpr const char* name_of(ControlAct act) {
    return control_act_names[static_cast<size_t>(act)];
}

// The request itself; what was not given is empty.
struct ControlOrder {
    ControlAct act = ControlAct::checkpoint;
    std::string then = {};             // after a snapshot
    std::vector<uint32_t> ranks = {};  // that are to move
    std::string node = {};             // where they go, empty: anywhere else; or that is drained
    std::string mode = {};             // of moves
    static const schema::Record table;
};

// The thread of a rank that its wrapper signals, by its numbers in the rank's name space.
struct AgentThread {
    int32_t pid = 0;
    int32_t tid = 0;
    static const schema::Record table;
};

// Bytes of a file in the folder of snapshots; of none: zeros.
struct XorPiece {
    std::string file;
    uint64_t offset = 0;
    uint64_t bytes = 0;
    static const schema::Record table;
};
// A file that several nodes send streams for, each as long as it likes: from `offset` on it is the
// streams' exclusive or, filled up with zeros; what is before that is parity's head, which one of
// them has with it.
struct XorTarget {
    uint64_t attempt = 0;  // seq of the operation: what an earlier one has left is not used
    uint64_t size = 0;     // of the file
    uint32_t streams = 0;  // how many come
    uint64_t offset = 0;
    schema::Bytes head = {};
    static const schema::Record table;
};
struct XorStream {
    uint32_t from = 0;
    uint32_t to = 0;
    std::string file;  // in the folder of snapshots
    XorTarget target;
    std::vector<XorPiece> pieces;  // one after the other
    static const schema::Record table;
};

// How far a transfer is.
struct TransferProgress {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    uint64_t bytes = 0;
    uint64_t total = 0;
    static const schema::Record table;
};

// What was being done when it failed.
enum class Stage : uint8_t {
    prepare,
    connect,
    check,
    target,      // what was found wanting at the target of a move, whichever end says it
    standstill,  // no fault: the rank cannot act now; the reason is a whole sentence
    state,
    moving,
    live,  // it cannot be moved live; by stop and copy, maybe
    exporting,
    importing,
    switching,
    going,
    attach,
    ending,
    rank,  // it has ended; the reason is a whole sentence
    wrapper,
    snapshot,
    folder,
    freeze,
    write,
};
inline constexpr const char* stage_names[] = {
    "prepare", "connect", "check",    "target", "standstill", "state",  "move",
    "live",    "export",  "import",   "switch", "go",         "attach", "die",
    "rank",    "wrapper", "snapshot", "folder", "freeze",     "write"};
constexpr std::span<const char* const> names_of(Stage) {
    return stage_names;
}
constexpr const char* name_of(Stage stage) {
    return stage_names[static_cast<size_t>(stage)];
}

// What was asked for cannot be done, or went wrong.
struct Failed {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    Stage stage = Stage::prepare;
    std::string why;
    static const schema::Record table;
};

// Memory that ranks of a node share (MPI_Win_allocate_shared).
struct SharedPart {
    std::string id;
    std::vector<uint32_t> ranks;  // all that have it, ascending
    uint64_t bytes = 0;           // of a move: how much is to go along
    bool strangers = false;       // others have it too
    static const schema::Record table;
    bool operator==(const SharedPart&) const = default;
};
// The rank, whoever shares memory with it, whoever shares some with those, and so on; `parts`: what
// one has.
std::set<uint32_t> sharers_of(uint32_t rank,
                              const std::function<std::vector<SharedPart>(uint32_t)>& parts);

// How far output of a rank goes.
struct OutputPlace {
    uint64_t lines = 0;
    uint64_t rest = 0;  // bytes of the line after those
    static const schema::Record table;

    static OutputPlace of(std::string_view data);
    // Both of the same stream: `more` comes behind this.
    OutputPlace& operator+=(const OutputPlace& more);
    bool is_before(const OutputPlace& other) const {
        return lines < other.lines || (lines == other.lines && rest < other.rest);
    }
    bool operator==(const OutputPlace&) const = default;
};
// What of a rank's output mpirun has shown since it began.
struct ShownOutput {
    uint32_t rank = 0;
    bool known = true;  // else what follows is too little
    OutputPlace output = {}, error = {};
    bool anew = false;  // counted from the snapshot on, which is from before this mpirun
    static const schema::Record table;
};

// A move begins at its target: the coordinator to the node agent, that to the restore wrapper. At a
// restart the node agent to the wrapper that is to check its ghost.
struct Prepare {
    uint64_t seq = 0;
    uint32_t epoch = 0;
    uint32_t rank = 0;
    uint32_t from = 0;
    uint64_t unit = 0;                      // of ranks that share memory and move together
    std::vector<SharedPart> shared = {};    // what this one of them has
    std::string secret = {};                // for the wrapper of a move
    std::string interfaces = {};            // to the wrapper: where it listens; empty: at all
    std::optional<ShownOutput> shown = {};  // to the wrapper, in a recovery: not to be shown again
    static const schema::Record table;
};

// The target is ready for the ghost.
struct Ready {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    std::string host;   // empty: the target node's name
    uint16_t port = 0;
    std::string token;
    static const schema::Record table;
};

// The source is to connect to the target: the coordinator to the node agent, that to the wrapper.
struct Connect {
    uint64_t seq = 0;
    uint32_t epoch = 0;
    uint32_t rank = 0;
    std::string host;
    uint16_t port = 0;
    std::string token;
    std::string secret = {};  // for the wrapper
    bool live = false;        // the rank runs while its memory goes
    // By stop all the same if it has less memory (bytes), or cannot be live here.
    std::optional<uint64_t> live_from = {};
    std::vector<SharedPart> shared = {};  // to a user's wrapper, which sees no other rank's
    static const schema::Record table;
};

struct Connected {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    std::vector<SharedPart> shared = {};
    std::optional<uint64_t> memory = {};  // live: bytes of its own
    std::string not_live = {};            // why it goes by stop, if it was to be live
    static const schema::Record table;
};

// A live move: little enough is left for the last stop.
struct Converged {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    static const schema::Record table;
};

// The whole ghost is out.
struct Exported {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    uint64_t bytes = 0;
    uint64_t rounds = 1;
    uint64_t zero_bytes = 0;
    int64_t frozen_us = 0;
    int64_t skeleton_us = 0;
    int64_t pages_us = 0;
    static const schema::Record table;
};

// The target has the whole ghost and holds it.
struct Held {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    uint64_t bytes = 0;
    int64_t skeleton_us = 0;
    int64_t pages_us = 0;
    std::optional<int32_t> init;       // a restart's: the node agent has nothing of this rank yet
    std::optional<AgentThread> agent;  // the same
    static const schema::Record table;
};

// The copy that is held runs.
struct Go {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    std::optional<AgentThread> agent;
    static const schema::Record table;
};

// The operation is off.
struct Abort {
    uint64_t seq = 0;
    uint32_t rank = 0;  // between daemons
    static const schema::Record table;
};

// A file a rank had open for writing when it was frozen.
struct SeenFile {
    schema::Name path;
    uint64_t size = 0;
    std::string file;      // which one it is of those that nodes have by this name
    int64_t changed = 0;   // when it was last, by the file's own clock
    int64_t taken = 0;     // when the rank's wrapper looked
    std::string hash;      // of its contents, if the ghost has them
    std::string begin;     // core::contents_hash() of them, if it has not
    int64_t modified = 0;  // then, core::WrittenFile::modified_ns
    static const schema::Record table;
};

// What the wrapper of a rank has written: the wrapper to its node agent, and a row of the answer to
// step `written`.
struct Written {
    uint64_t seq = 0;
    uint32_t rank = 0;  // the node agent's
    std::string node;   // the same
    std::string file;
    std::string kind = "full";
    std::string parent;
    std::vector<std::string> chain;
    std::string digest;
    uint64_t bytes = 0;
    uint64_t page_bytes = 0;
    uint64_t zero_bytes = 0;
    uint64_t memory = 0;
    int64_t pause_us = 0;  // the node agent's
    int64_t stdin_bytes = -1;
    std::vector<SeenFile> files;
    bool all_files = true;
    std::string signer = {};  // hex; empty: not signed
    static const schema::Record table;
};

}  // namespace ghost::plugin
