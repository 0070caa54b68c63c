// SPDX-License-Identifier: BSD-3-Clause
// `ghost ps`: jobs on this machine, their nodes and ranks; those that have ended.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>

#include "base/json_member.hpp"
#include "tools/history.hpp"
#include "tools/job_client.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

constexpr int answer_limit_ms = 5000;

// The coordinator may be older or newer than this program: every field may be missing.
void print_snapshots(const Json& info) {
    const auto part = [&](const char* key) {
        const Json found = member(info, key, Json::object());
        return found.is_object() ? found : Json::object();
    };
    if (const Json last = part("snapshot"); !last.empty()) {
        fmt::print("  last snapshot {} of {}, to {}, {}, paused {}\n",
                   member(last, "snapshot", "?"), member(last, "time", "?"),
                   member(last, "level", "disk"), bytes_text(member(last, "bytes", uint64_t{0})),
                   time_text(member(last, "pause_us", int64_t{0})));
        const Json copies = member(last, "copies", Json::object());
        std::vector<std::string> lines;
        for (const auto& [node, other] : copies.items())
            lines.push_back(fmt::format("{} on {}", node, other.is_string() ? other : Json("?")));
        if (!lines.empty()) fmt::print("  copies of {}\n", fmt::join(lines, ", "));
        for (const Json& group : list_in(last, "parity")) {
            lines.clear();
            for (const Json& node : group) lines.push_back(node.is_string() ? node : Json("?"));
            fmt::print("  parity over {}\n", fmt::join(lines, ", "));
        }
    }
    if (const Json now = part("mending"); !now.empty())
        fmt::print("  {} of {} {} made again\n", member(now, "parity", false) ? "parity" : "copies",
                   member(now, "snapshot", "?"), member(now, "parity", false) ? "is" : "are");
    if (const Json now = part("snapshotting"); !now.empty())
        fmt::print("  snapshot {} is being made: {}\n", member(now, "name", "?"),
                   member(now, "phase", "?"));
    if (const Json now = part("restarting"); !now.empty())
        fmt::print("  being {} from {}: {}\n",
                   member(now, "recovery", false) ? "recovered" : "restarted",
                   member(now, "snapshot", "?"), member(now, "phase", "?"));
    if (info.contains("next_snapshot_us"))
        fmt::print("  next snapshot in {}\n",
                   time_text(member(info, "next_snapshot_us", int64_t{0})));
    if (const Json now = part("interval"); !now.empty())
        fmt::print("  snapshots {} apart{}, a loss expected every {}\n",
                   time_text(member(now, "us", int64_t{0})),
                   now.contains("cost_us")
                       ? ": each costs " + time_text(member(now, "cost_us", int64_t{0}))
                       : "",
                   time_text(member(now, "mtbf_us", int64_t{0})));
    if (member(info, "stopped", false))
        fmt::print("  stopped; send SIGCONT to mpirun to continue\n");
}

void print_job(const Json& info) {
    Json nodes = list_in(info, "nodes"), ranks = list_in(info, "ranks");
    fmt::print("mpirun {}  job {}  {}  {} ranks on {} nodes  epoch {}\n", member(info, "pid", 0),
               member(info, "job", "?"), member(info, "running", true) ? "running" : "not running",
               ranks.size(), nodes.size(), member(info, "epoch", 0));
    std::map<std::string, std::vector<std::string>> by_node;
    for (const Json& node : nodes) by_node[member(node, "name", "?")];
    for (const Json& rank : ranks) {
        std::string text = std::to_string(member(rank, "rank", -1));
        const std::string state = member(rank, "state", "running");
        if (state != "running") text += fmt::format(" ({})", state);
        by_node[member(rank, "node", "?")].push_back(text);
    }
    for (const auto& [node, here] : by_node) {
        fmt::print("  {:<16} ranks {}\n", node,
                   here.empty() ? std::string("none") : fmt::format("{}", fmt::join(here, ", ")));
    }
    for (const Json& node : nodes) {
        const bool drained = member(node, "drained", false);
        if (!member(node, "alive", true))
            fmt::print("  {} {}\n", member(node, "name", "?"),
                       drained ? "has left the job" : "does not answer");
        else if (drained)
            fmt::print("  {} is drained: no rank goes there\n", member(node, "name", "?"));
    }
    for (const Json& move : list_in(info, "moves")) {
        fmt::print("  moving rank {} from {} to {}: {} (request {})\n", member(move, "rank", -1),
                   member(move, "from", "?"), member(move, "to", "?"), member(move, "phase", "?"),
                   member(move, "id", 0));
    }
    for (const Json& one : list_in(info, "queue")) {
        fmt::print("  waiting: {} (request {})\n", member(one, "what", "?"), member(one, "id", 0));
    }
    print_snapshots(info);
}

int run_ps(const std::string& wanted, bool json) {
    std::vector<std::string> silent;
    Json jobs = Json::array();
    if (wanted.empty()) {
        for (const Job& job : running_jobs(answer_limit_ms, &silent)) jobs.push_back(job.info);
    } else {
        auto job = choose_job(wanted);
        if (!job.ok()) return report(job.error(), json);
        jobs.push_back(job->info);
    }
    for (const std::string& text : silent) fmt::print(stderr, "ghost: {}\n", text);
    if (json) {
        print_json({{"jobs", jobs}});
    } else if (jobs.empty()) {
        fmt::print("no job with `--mca ghost 1` of yours runs on this node\n");
    } else {
        for (const Json& info : jobs) print_job(info);
    }
    return silent.empty() ? exit_done : exit_unharmed;
}

void print_events(const JobHistory& history) {
    fmt::print("{}\n", line_about(history));
    for (const plugin::Event& event : history.events)
        fmt::print("  {}  {}\n", harmless(event.time), words_of(event));
    if (history.unread > 0) fmt::print("  {} lines could not be read\n", history.unread);
    if (history.cut) fmt::print("  there is more in {}\n", history.path);
}

int history_of_all(bool json) {
    std::vector<std::string> unreadable;
    const auto all = all_histories(unreadable);
    if (!all.ok()) return report(all.error(), json);
    for (const std::string& text : unreadable) fmt::print(stderr, "ghost: {}\n", text);
    if (json) {
        Json jobs = Json::array();
        for (const JobHistory& one : *all) jobs.push_back(history_json(one, false));
        print_json({{"jobs", jobs}});
    } else if (all->empty()) {
        fmt::print("there is no event log of a job of yours\n");
    } else {
        for (const JobHistory& one : *all) fmt::print("{}\n", line_about(one));
    }
    return unreadable.empty() ? exit_done : exit_unharmed;
}

int run_history(const std::string& wanted, bool json) {
    if (wanted.empty()) return history_of_all(json);
    const auto history = find_history(wanted);
    if (!history.ok()) return report(history.error(), json);
    json ? print_json(history_json(*history, true)) : print_events(*history);
    return exit_done;
}

}  // namespace

void define_ps(CommandLine app, int& exit_status) {
    auto wanted = std::make_shared<std::string>();
    app.add_option("job", *wanted, "mpirun's pid or the job's name (default: all jobs)");
    auto history = std::make_shared<bool>(false);
    app.add_flag("--history", *history,
                 "jobs that run and have ended, by their event logs; with JOB what happened to it");
    auto json = add_json(app);
    app.callback([=, &exit_status] {
        exit_status = *history ? run_history(*wanted, *json) : run_ps(*wanted, *json);
    });
}

}  // namespace ghost::tools
