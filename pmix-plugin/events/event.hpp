// SPDX-License-Identifier: BSD-3-Clause
// What happens to a job, as its event log has it (docs/EVENTS.md): one JSON object a line.
//
//   EventsRead read = read_events(text);   // of anybody, whole or torn, older or newer
//   for (const Event& event : read.events)
//       if (event.kind() == EventKind::move) ...
//
// Plain data; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/schema.hpp"

namespace ghost::plugin {

// In the order of their names, `event_names`.
enum class EventKind : uint8_t {
    started,       // ranks run: the log begins with it
    restarted,     // they go on from a snapshot
    recovered,     // the same, under the same mpirun, after a loss
    restart,       // `ghost restart` has begun one (in the log beside the snapshots only)
    asked,         // somebody has asked for something
    cancelled,     // and it was undone, before or while it was done
    moving,        // a rank's move has begun
    move,          // the rank has moved
    not_live,      // it cannot move live, and is tried by stop
    no_move,       // it has not moved
    snapshotting,  // a snapshot has begun
    snapshot,      // it is complete
    no_snapshot,   // it came to nothing
    interval,      // so far apart they are from now on
    continued,     // the job goes on after a snapshot with `then` = stop
    draining,      // ranks are to leave a node
    drained,       // they have
    no_drain,      // some stay, or the daemon does
    joining,       // a node is to join
    node_joined,
    no_grow,    // it has not joined
    node_left,  // its daemon has ended as it was told to
    node_lost,  // it cannot be reached, or its daemon has died
    rank_lost,  // a signal has ended it, or it has given up
    ranks_ended,
    ended,  // mpirun ends; the last line
    other,  // of a newer Ghost
};
inline constexpr const char* event_names[] = {
    "started",   "restarted", "recovered", "restart",      "asked",    "cancelled",   "moving",
    "move",      "not_live",  "no_move",   "snapshotting", "snapshot", "no_snapshot", "interval",
    "continued", "draining",  "drained",   "no_drain",     "joining",  "node_joined", "no_grow",
    "node_left", "node_lost", "rank_lost", "ranks_ended",  "ended",    "other"};

// Which ranks are on a node.
struct NodePlace {
    std::string node;
    std::vector<uint32_t> ranks;
    static const schema::Record table;
};

// What does not apply is not there.
struct Event {
    std::string time;   // UTC (base/utc.hpp)
    std::string event;  // a name of EventKind, or a newer one's
    // --- started, restarted ---
    std::optional<std::string> job, life, host, program;
    std::optional<int64_t> pid;
    std::vector<NodePlace> places;
    // --- what it is about ---
    std::optional<uint64_t> id;
    std::optional<std::string> what;
    std::optional<uint32_t> rank;
    std::vector<uint32_t> which;
    std::optional<std::string> node, from, to, mode;
    std::optional<int64_t> slots;
    std::optional<std::string> snapshot, folder, kind_of, level, asked_by, then;
    // --- how it went ---
    std::optional<uint64_t> epoch, ranks, bytes, rounds;
    std::optional<int64_t> downtime_us, pause_us, total_us, redone_us;
    std::optional<int64_t> interval_us, cost_us, mtbf_us;
    std::optional<bool> harmed, again;
    std::optional<int64_t> status;
    std::optional<std::string> why;
    static const schema::Record table;

    EventKind kind() const;
    // µs since 1970; 0 if it cannot be read.
    int64_t at_us() const;
};

// Of now.
Event make_event(EventKind kind);
// One line, with its end.
std::string line_of(const Event& event);

struct EventsRead {
    std::vector<Event> events;
    size_t unread = 0;  // lines that are none: torn, or of something else
    bool cut = false;   // there is more than is read
};

// At most so many are read: a log is somebody else's, perhaps.
inline constexpr size_t most_events = 100'000;
EventsRead read_events(std::string_view text);

}  // namespace ghost::plugin
