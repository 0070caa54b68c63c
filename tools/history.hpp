// SPDX-License-Identifier: BSD-3-Clause
// What an event log says of a job: when it ran, where its ranks were at which time, its moves and
// snapshots. The log may be somebody else's: whatever is in it is only shown.
// Plain data; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "pmix-plugin/events/event.hpp"

namespace ghost::tools {

// A rank on a node; times are µs since 1970.
struct Stay {
    size_t node = 0;  // in JobHistory::nodes
    int64_t from_us = 0, until_us = 0;
};

struct JobHistory {
    std::string path;  // of the log
    std::string job, host, program;
    int64_t pid = 0;  // mpirun's
    int64_t began_us = 0, last_us = 0;
    bool running = false;           // mpirun has the log
    bool ended = false;             // mpirun has said so; else, and not running, it was killed
    std::optional<int64_t> status;  // mpirun's
    std::string restarted_from;     // a snapshot; empty: it is new
    std::vector<std::string> nodes;
    std::map<uint32_t, std::vector<Stay>> ranks;
    size_t moves = 0, moves_failed = 0, snapshots = 0, snapshots_failed = 0, recoveries = 0;
    uint64_t bytes_moved = 0;
    int64_t longest_downtime_us = 0, longest_pause_us = 0;
    int64_t recovered_us = 0, redone_us = 0;  // in all: recoveries, and what was computed again
    std::map<std::string, size_t> levels;     // snapshots of each
    std::vector<plugin::Event> events;
    size_t unread = 0;  // lines
    bool cut = false;   // there is more

    int64_t lasted_us() const { return last_us - began_us; }
};

// `now_us`: of a job that runs; else its log says when it ended.
JobHistory history_of(plugin::EventsRead log, int64_t now_us = 0);

// Of all of this user's jobs on this machine that have a log, the newest first. Logs that cannot be
// read are named in `unreadable`.
Result<std::vector<JobHistory>> all_histories(std::vector<std::string>& unreadable);
// Of one: by mpirun's pid or the job's name (the newest of several); empty: the newest of all.
Result<JobHistory> find_history(const std::string& job);
// Of a log that is named by its path.
Result<JobHistory> read_history(const std::string& path);

// {job, pid, host, program, log, began, ended, running, status, ranks, nodes, moves, …}; `whole`:
// with stays and events.
nlohmann::json history_json(const JobHistory& history, bool whole);

// What happened, in plain words, without its time; fit for a terminal.
std::string words_of(const plugin::Event& event);
// One line about the job.
std::string line_about(const JobHistory& history);
// "running", "ended with status 0", "mpirun was killed".
std::string state_of(const JobHistory& history);
// "2025-01-31 23:59:59"
std::string short_time(int64_t us);
// Nothing in it acts on a terminal: control characters become "?".
std::string harmless(std::string text);

}  // namespace ghost::tools
