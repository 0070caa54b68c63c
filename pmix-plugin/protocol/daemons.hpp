// SPDX-License-Identifier: BSD-3-Clause
// What the daemons of a job say to each other: the coordinator (in mpirun) and the node agents (in
// every daemon), by the runtime's messages (docs/PROTOCOL.md, "Between daemons").
#pragma once

#include "kernet-btl/transport/location.hpp"
#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

// Every daemon loads the component of its own machine; another build is told so.
inline constexpr uint32_t daemon_protocol = 1;

enum class DaemonMessage : uint8_t {
    // coordinator to node agents
    ping,
    location,
    node_lost,
    node_joins,
    leave,
    prepare,
    connect,
    gate,
    switch_rank,
    go,
    abort,
    snap_prepare,
    snap_ping,
    snap_gate,
    snap_ungate,
    snap_close,
    snap_end,
    snap_abort,
    restart_prepare,
    restart_import,
    restart_go,
    recover_stop,
    recover_start,
    rank_ends,
    make_copies,
    streams_open,
    streams_nodes,
    job_control_done,
    // node agents to the coordinator
    pong,
    located,
    ready,
    connected,
    busy,
    gated,
    running,
    converged,
    exported,
    held,
    progress,
    failed,
    switched,
    done,
    aborted,
    leaving,
    joined,
    rank_died,
    input_taken,
    copies_made,
    copies_progress,
    streams_wanted,
    streams_here,
    job_control,
    late_call,
    lease,
    // node agents to each other, and up the tree to the coordinator
    snap_up,
    snap_progress,
    copy_offer,
    copy_taken,
    rank_input_want,
    rank_input,
};
extern const schema::Family between_daemons;

struct Ping {
    uint64_t n = 0;
    bool look = false;
    uint32_t version = daemon_protocol;
    static const schema::Record table;
};
// A rank that cannot act: "stopped", "traced by gdb 4711", …
struct RankStanding {
    uint32_t rank = 0;
    std::string state;
    static const schema::Record table;
};
struct Pong {
    uint64_t n = 0;
    bool looked = false;
    std::vector<RankStanding> still;
    uint32_t version = daemon_protocol;
    static const schema::Record table;
};
struct Locations {
    uint64_t version = 0;
    std::vector<kernet::Location> entries;
    static const schema::Record table;
};
struct NodeLost {
    uint32_t node = 0;
    static const schema::Record table;
};

// A node becomes part of the job while it runs.
struct NodeJoins {
    uint64_t seq = 0;
    uint32_t node = 0;
    uint32_t place = 0;
    std::string name;
    int32_t slots = 0;
    static const schema::Record table;
};
struct Joined {
    uint64_t seq = 0;
    std::optional<std::string> why;
    static const schema::Record table;
};

struct AskLeave {
    uint64_t seq = 0;
    static const schema::Record table;
};
struct Leaving {
    uint64_t seq = 0;
    std::optional<std::string> why;
    static const schema::Record table;
};

// --- a move ---

struct GateRank {
    uint64_t seq = 0;
    uint32_t rank = 0;
    static const schema::Record table;
};
struct Switch {
    uint64_t seq = 0;
    uint32_t rank = 0;
    uint32_t from = 0;
    uint32_t to = 0;
    uint32_t epoch = 0;
    static const schema::Record table;
};
struct Located {
    kernet::Location location;
    static const schema::Record table;
};
struct Busy {
    uint64_t seq = 0;
    uint32_t rank = 0;
    std::string why;
    static const schema::Record table;
};
struct RankGated {
    uint64_t seq = 0;
    uint32_t rank = 0;
    std::optional<AgentThread> agent;
    static const schema::Record table;
};
// A live move: the skeleton is out, the rank runs again where it was.
struct RankRunning {
    uint64_t seq = 0;
    uint32_t rank = 0;
    std::optional<kernet::Location> location;
    static const schema::Record table;
};
struct Switched {
    uint64_t seq = 0;
    uint32_t rank = 0;
    int32_t votes = 0;
    static const schema::Record table;
};
struct Done {
    uint64_t seq = 0;
    uint32_t rank = 0;
    std::optional<kernet::Location> location;
    bool ended = false;
    static const schema::Record table;
};
struct Aborted {
    uint64_t seq = 0;
    uint32_t rank = 0;
    std::optional<kernet::Location> location;
    bool ended = false;
    bool unreported = false;
    static const schema::Record table;
};

// --- steps of a snapshot and a restart ---

// The tree of daemons by which a step is answered: 0 to daemons-1 without some.
struct DaemonSet {
    uint32_t daemons = 0;
    std::vector<uint32_t> without;
    static const schema::Record table;
};
// The order for a step that needs to say nothing more.
struct StepOrder {
    uint64_t seq = 0;
    uint64_t attempt = 0;
    DaemonSet tree;
    static const schema::Record table;
};
struct SnapPrepare {
    uint64_t seq = 0;
    uint64_t attempt = 0;
    DaemonSet tree;
    std::string name;
    std::string folder;
    std::string second;
    bool incremental = false;
    uint64_t last = 0;
    std::string compress = "none";
    uint64_t rate = 0;
    uint64_t carried = 64 << 10;
    Then then = Then::go_on;
    std::vector<uint32_t> ranks = {};  // empty: all of the job
    bool sign = false;
    static const schema::Record table;
};
struct SnapEnd {
    uint64_t seq = 0;
    std::vector<std::string> remove;
    std::vector<std::string> remove_seconds;
    static const schema::Record table;
};
struct RestartPrepare {
    uint64_t seq = 0;
    DaemonSet tree;
    uint32_t epoch = 0;
    static const schema::Record table;
};

// A rank, or all of a node, that cannot take a step now, or because of which it failed.
struct RankTrouble {
    std::optional<uint32_t> rank;
    std::string node;
    std::optional<Stage> stage;
    std::string why;
    static const schema::Record table;
};
// What a node and all below it have to say to one step.
struct StepAnswer {
    static constexpr size_t most_named = 8;

    uint64_t ranks = 0;
    uint64_t busy_ranks = 0;    // of which most_named are in `busy`
    uint64_t failed_ranks = 0;  // the same
    std::vector<RankTrouble> busy;
    std::vector<RankTrouble> failed;
    std::vector<Written> written;
    std::vector<kernet::Location> locations;
    uint64_t own_folders = 0;
    uint64_t own_seconds = 0;
    uint64_t bytes = 0;
    int64_t pause_us = 0;
    static const schema::Record table;

    void add_busy(uint32_t rank, const std::string& why);
    void add_failed(std::optional<uint32_t> rank, const std::string& node,
                    std::optional<Stage> stage, const std::string& why);
    void merge(StepAnswer other);
};
// "rank 3 at gn2: check: descriptor 7 …; and 12 more": a list of `busy` or `failed` for the user.
std::string describe(const std::vector<RankTrouble>& list, uint64_t all);

enum class ParticipantStep : uint8_t {
    idle,       // nothing under way
    ready,      // the wrappers look at their ranks and copy memory, the ranks run
    here,       // only: this daemon answers
    gated,      // every rank's gates close
    ungated,    // and open again: one was busy
    resumed,    // the trees are frozen, one after the other comes back
    written,    // the ghosts go to disk, the ranks run
    ended,      // complete; nothing is answered
    aborted,    // off: everything is brought home
    checked,    // restart: the wrappers look at ghosts, node and files; nothing is changed
    held,       // restart: the wrappers cut files back, import and hold
    restarted,  // restart: the trees run, the ranks attach
    halted,     // recovery: every rank is ended and forgotten
    started,    // recovery: wrappers are started where ranks are to be
};
inline constexpr const char* participant_step_names[] = {
    "idle",  "ready",   "here",    "gated", "ungated",   "resumed", "written",
    "ended", "aborted", "checked", "held",  "restarted", "halted",  "started"};
constexpr std::span<const char* const> names_of(ParticipantStep) {
    return participant_step_names;
}
constexpr const char* name(ParticipantStep step) {
    return participant_step_names[static_cast<size_t>(step)];
}

struct StepUp {
    uint64_t seq = 0;
    ParticipantStep step = ParticipantStep::idle;
    uint64_t attempt = 0;
    StepAnswer answer;
    static const schema::Record table;
};
struct StepProgress {
    uint64_t seq = 0;
    uint64_t bytes = 0;
    uint64_t total = 0;
    static const schema::Record table;
};

// --- a recovery ---

// A rank here was killed, or gave up; the runtime has not been told.
struct RankDied {
    uint32_t rank = 0;
    int32_t status = 0;
    static const schema::Record table;
};
struct RankEnds {
    uint32_t rank = 0;
    static const schema::Record table;
};
struct InputTaken {
    uint32_t rank = 0;
    int64_t bytes = 0;
    static const schema::Record table;
};
struct RecoverStop {
    uint64_t seq = 0;
    DaemonSet tree;
    static const schema::Record table;
};
struct RankPlace {
    uint32_t rank = 0;
    uint32_t node = 0;
    static const schema::Record table;
};
struct RecoverStart {
    uint64_t seq = 0;
    std::string life;
    std::string snapshot;
    std::vector<RankPlace> places;
    std::optional<uint32_t> input_of = {};
    bool input_ended = false;
    std::vector<ShownOutput> shown = {};
    bool anew = false;
    static const schema::Record table;
};

// --- copies of what nodes have in their memory, or on disks of their own ---

// Of a rank's ghost, with those it is based on: names in the folder of snapshots.
struct GhostCopy {
    uint32_t rank = 0;
    uint32_t from = 0;
    uint32_t to = 0;
    std::vector<std::string> files;
    static const schema::Record table;
};
struct MakeCopies {
    uint64_t seq = 0;
    std::string folder;
    std::string name;
    uint64_t rate = 0;
    std::vector<GhostCopy> copies;
    std::string manifest;
    std::vector<XorStream> streams = {};
    static const schema::Record table;
};
struct CopiesMade {
    uint64_t seq = 0;
    std::string why;
    static const schema::Record table;
};
struct CopiesProgress {
    uint64_t seq = 0;
    uint64_t bytes = 0;
    uint64_t total = 0;
    static const schema::Record table;
};
struct CopyOffer {
    uint64_t seq = 0;
    std::string folder;
    std::string name;
    static const schema::Record table;
};
struct CopyTaken {
    uint64_t seq = 0;
    std::string host;
    uint16_t port = 0;
    std::string token;
    std::string why;
    static const schema::Record table;
};

// --- stream managers ---

struct StreamsWanted {
    static const schema::Record table;
};
struct StreamsOpen {
    static const schema::Record table;
};
struct StreamsHere {
    std::vector<kernet::TcpAddress> tcp;
    std::string why;
    static const schema::Record table;
};
struct StreamsNode {
    uint32_t id = 0;
    std::string name;
    std::vector<kernet::TcpAddress> tcp;
    static const schema::Record table;
};
struct StreamsNodes {
    std::vector<StreamsNode> nodes;
    std::string why;
    static const schema::Record table;
};

// --- the runtime's own ---

struct JobControlAsked {
    uint64_t id = 0;
    bool rank = false;
    ControlOrder order;
    static const schema::Record table;
};
struct JobControlDone {
    uint64_t id = 0;
    std::string why;
    static const schema::Record table;
};
struct NamedProcess {
    uint32_t job = 0;
    uint32_t rank = 0;
    static const schema::Record table;
};
struct LateCall {
    bool expected = false;
    std::vector<NamedProcess> processes;
    static const schema::Record table;
};
struct LeasePort {
    uint16_t port = 0;
    static const schema::Record table;
};
struct RankInputWant {
    uint32_t rank = 0;
    uint64_t move = 0;
    uint64_t at = 0;
    static const schema::Record table;
};
struct RankInputPiece {
    uint32_t rank = 0;
    uint64_t move = 0;
    uint64_t at = 0;
    schema::Bytes data;
    bool end = false;
    bool last = false;
    static const schema::Record table;
};

}  // namespace ghost::plugin
