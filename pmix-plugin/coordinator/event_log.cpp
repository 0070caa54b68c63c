// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/event_log.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

#include "base/addresses.hpp"
#include "base/exit_status.hpp"
#include "pmix-plugin/coordinator/operations/continuation.hpp"
#include "pmix-plugin/coordinator/operations/drain.hpp"
#include "pmix-plugin/coordinator/operations/grow.hpp"
#include "pmix-plugin/coordinator/operations/leave.hpp"
#include "pmix-plugin/coordinator/operations/restart.hpp"
#include "pmix-plugin/coordinator/operations/snapshot.hpp"
#include "pmix-plugin/events/files.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t most_waiting = 1000;   // lines, until there is a folder of snapshots
constexpr size_t file_bytes = 4 << 20;  // then it becomes the older part
constexpr int64_t gather_us = 200'000;  // ranks that end together are told of together
constexpr size_t program_bytes = 1000;

Event of_node(EventKind kind, const std::string& node) {
    Event event = make_event(kind);
    event.node = node;
    return event;
}

void say_why(Event& event, const std::string& why) {
    if (!why.empty()) event.why = why;
}

Event of_move(EventKind kind, const Move& m) {
    Event event = make_event(kind);
    event.rank = m.rank;
    event.from = m.from_name;
    event.to = m.to_name;
    event.mode = m.mode;
    return event;
}

// How a move ended; none: it was there already.
std::optional<EventKind> end_of(const Move& m) {
    if (m.moved) return EventKind::move;
    if (m.state == MoveState::done) return std::nullopt;
    return m.stops_instead() ? EventKind::not_live : EventKind::no_move;
}

}  // namespace

// --- the file ---

void EventLog::add(const Event& event) {
    if (ended_) return;
    const std::string line = line_of(event);
    if (!settings_.events.empty() && !std::exchange(opened_, true))
        writer_.open(new_events_file(settings_.events, adapter_.job_name(), ::getpid()));
    if (opened_ && bytes_ > file_bytes) {
        writer_.rotate();
        const std::string start = line_of(start_event());
        writer_.write(start);
        bytes_ = start.size();
    }
    bytes_ += line.size();
    if (beside_.empty()) {
        waiting_.push_back(line);
        if (waiting_.size() > most_waiting) waiting_.pop_front();
    }
    if (opened_ || !beside_.empty()) writer_.write(line);
}

// The log that is beside the job's snapshots has all its lives.
void EventLog::open_beside(const std::string& folder) {
    if (!beside_.empty() || ended_) return;
    beside_ = folder;
    writer_.also([folder, job = adapter_.job_name(),
                  before = std::exchange(waiting_, {})](const std::string& line) mutable {
        std::string text;
        for (const std::string& one : std::exchange(before, {})) text += one;
        const Status done = append_event(folder, job, text + line);
        return done.ok() ? std::string() : done.error().message();
    });
}

// --- the job ---

Event EventLog::start_event() const {
    Event event = make_event(EventKind::started);
    event.job = adapter_.job_name();
    event.life = adapter_.life();
    event.host = host_name();
    event.pid = ::getpid();
    event.epoch = epoch_;
    const JobDescription described = adapter_.describe_job();
    if (!described.apps.empty() && !described.apps[0].argv.empty())
        event.program = described.apps[0].argv[0].substr(0, program_bytes);
    std::map<NodeId, NodePlace> places;
    for (const NodeInfo& node : adapter_.nodes())
        if (node.alive) places[node.id].node = node.name;
    const auto ranks = adapter_.ranks();
    for (const RankInfo& rank : ranks) places[rank.node].ranks.push_back(rank.rank);
    event.ranks = ranks.size();
    for (auto& [id, place] : places) event.places.push_back(std::move(place));
    return event;
}

void EventLog::started(uint64_t epoch) {
    epoch_ = epoch;
    add(start_event());
}

void EventLog::rank_ended(RankId rank, int status) {
    if (ended_ || !told_.insert(rank).second) return;
    just_ended_[status].push_back(rank);
    if (!gather_) gather_ = adapter_.after(gather_us, [this] { tell_ended(); });
}

void EventLog::tell_ended() {
    if (gather_) adapter_.cancel(*std::exchange(gather_, std::nullopt));
    for (auto& [status, ranks] : std::exchange(just_ended_, {})) {
        Event event = make_event(EventKind::ranks_ended);
        event.which = std::move(ranks);
        std::ranges::sort(event.which);
        event.status = status;
        add(event);
    }
}

void EventLog::ended() {
    if (ended_) return;
    tell_ended();
    if (opened_ || !beside_.empty()) {
        Event event = make_event(EventKind::ended);
        event.status = adapter_.exit_status();
        add(event);
    }
    ended_ = true;
    writer_.stop();
}

// --- operations ---

void EventLog::begun(const Move& m) {
    Event event = of_move(EventKind::moving, m);
    if (m.chosen && m.mode == "live") event.mode = "auto";  // the source has not looked yet
    add(event);
}

void EventLog::over(const Move& m) {
    const auto kind = end_of(m);
    if (!kind) return;
    Event event = of_move(*kind, m);
    event.total_us = m.lasted;
    if (*kind == EventKind::move) {
        epoch_ = std::max<uint64_t>(epoch_, m.epoch);
        event.epoch = m.epoch;
        event.bytes = m.bytes;
        event.rounds = m.rounds;
        event.downtime_us = m.downtime;
        say_why(event, m.not_live);
    } else {
        say_why(event, *kind == EventKind::not_live ? m.not_live : m.why);
        if (m.harmed) event.harmed = true;
    }
    add(event);
}

void EventLog::begun(const SnapshotRun& run) {
    Event event = make_event(EventKind::snapshotting);
    event.asked_by = run.asked_by;
    add(event);
}

void EventLog::over(const SnapshotRun& run) {
    if (!run.name.empty()) open_beside(run.folder);
    const bool done = run.state == SnapshotState::done;
    Event event = make_event(done ? EventKind::snapshot : EventKind::no_snapshot);
    if (!run.name.empty()) event.snapshot = run.name;
    if (!run.folder.empty()) event.folder = run.folder;
    event.asked_by = run.asked_by;
    event.then = run.then;
    event.ranks = run.ranks;
    event.total_us = run.lasted;
    if (done) {
        event.kind_of = run.kind;
        event.level = level_of(run);
        event.bytes = run.written.bytes;
        event.pause_us = run.pause;
    } else {
        say_why(event, run.why);
        if (run.harmed) event.harmed = true;
    }
    add(event);
}

void EventLog::begun(const Grow& grow) {
    add(of_node(EventKind::joining, grow.order.node));
}

void EventLog::over(const Grow& grow) {
    const bool joined = grow.state == GrowState::done;
    Event event = of_node(joined ? EventKind::node_joined : EventKind::no_grow,
                          joined ? grow.node.name : grow.order.node);
    event.total_us = grow.lasted;
    if (joined) event.slots = grow.node.slots;
    if (grow.again) event.again = true;
    if (!joined) say_why(event, grow.why);
    add(event);
}

void EventLog::over(const Restart& restart) {
    if (restart.state != RestartState::done) return;
    Event event = make_event(EventKind::restarted);
    if (restart.recovers()) {
        event = start_event();
        event.event = event_names[static_cast<size_t>(EventKind::recovered)];
        say_why(event, restart.lost);
        event.redone_us = restart.redone;
        told_.clear();  // ranks that were lost are back
    }
    event.job = adapter_.job_name();
    event.snapshot = restart.name;
    event.folder = restart.folder;
    event.epoch = restart.epoch;
    event.ranks = restart.ranks;
    event.total_us = restart.lasted;
    add(event);
}

void EventLog::over(const Leave& leave) {
    if (leave.state != LeaveState::done) return;  // the drain says why not
    Event event = of_node(EventKind::node_left, leave.name);
    event.total_us = leave.lasted;
    add(event);
}

void EventLog::interval(int64_t us, int64_t cost_us, int64_t mtbf_us) {
    Event event = make_event(EventKind::interval);
    event.interval_us = us;
    event.cost_us = cost_us;
    event.mtbf_us = mtbf_us;
    add(event);
}

void EventLog::asked(const Request& request) {
    Event event = make_event(EventKind::asked);
    event.id = request.id;
    event.what = request.what;
    add(event);
}

void EventLog::cancelled(uint64_t id, const std::string& what) {
    Event event = make_event(EventKind::cancelled);
    event.id = id;
    event.what = what;
    add(event);
}

void EventLog::draining(uint64_t id, const std::string& node, const std::vector<std::string>& to) {
    Event event = of_node(EventKind::draining, node);
    event.id = id;
    if (!to.empty()) event.to = fmt::format("{}", fmt::join(to, ", "));
    add(event);
}

void EventLog::over(uint64_t id, const std::string& node, const DrainResult& result) {
    Event event = of_node(result.drained ? EventKind::drained : EventKind::no_drain, node);
    event.id = id;
    for (const auto& one : result.stay) event.which.push_back(one.rank);
    if (!result.drained) say_why(event, result.error);
    if (result.exit == 3) event.harmed = true;
    add(event);
}

void EventLog::node_lost(const std::string& node, const std::vector<RankId>& ranks) {
    Event event = of_node(EventKind::node_lost, node);
    event.which = ranks;
    add(event);
}

void EventLog::rank_lost(RankId rank, const std::string& node, int signal) {
    told_.insert(rank);
    Event event = of_node(EventKind::rank_lost, node);
    event.rank = rank;
    event.status = signal == 0 ? lost_server_status : 128 + signal;
    add(event);
}

}  // namespace ghost::plugin
