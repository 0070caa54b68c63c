// SPDX-License-Identifier: BSD-3-Clause
#include "tools/top_frame.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "base/json_member.hpp"
#include "tools/history.hpp"
#include "tools/terminal.hpp"

namespace ghost::tools {

using Json = nlohmann::json;

namespace {

constexpr size_t bar_width = 20;
// Beyond it a rate (bytes/s) or a time (us) says nothing, and would not fit.
constexpr double beyond = 1e18;

using Lines = std::vector<FrameLine>;

void add(Lines& out, const std::string& text, LineStyle style = LineStyle::plain) {
    out.push_back({harmless(text), style});
}

std::string bar(uint64_t done, uint64_t total) {
    if (total == 0) return "";
    const double part = static_cast<double>(std::min(done, total)) / static_cast<double>(total);
    const auto filled = static_cast<size_t>(part * bar_width);
    return fmt::format(" [{}{}]", std::string(filled, '#'), std::string(bar_width - filled, '.'));
}

std::string amount(const Json& one) {
    const auto done = member(one, "bytes", uint64_t{0}), total = member(one, "total", uint64_t{0});
    std::string text = bar(done, total);
    if (done > 0) text += " " + bytes_text(done);
    if (total > done) text += " of " + bytes_text(total);
    const auto rate = member(one, "bytes_per_s", uint64_t{0});
    if (rate > 0) text += fmt::format(", {}/s", bytes_text(rate));
    if (const auto left = member(one, "left_us", int64_t{-1}); left >= 0)
        text += fmt::format(", {} left", time_text(left));
    return text;
}

void add_nodes(Lines& out, const Json& job) {
    add(out, fmt::format("  {:<20} {:>6} {:>6}  {}", "NODE", "RANKS", "SLOTS", "STATE"),
        LineStyle::heading);
    for (const Json& node : list_in(job, "nodes")) {
        const bool alive = member(node, "alive", true), drained = member(node, "drained", false);
        const char* state = !alive    ? (drained ? "has left" : "does not answer")
                            : drained ? "drained"
                                      : "takes ranks";
        add(out,
            fmt::format("  {:<20} {:>6} {:>6}  {}", member(node, "name", "?"),
                        member(node, "used", 0), member(node, "slots", 0), state),
            alive || drained ? LineStyle::plain : LineStyle::bad);
    }
}

// Of ranks that are under way: where to.
std::map<int64_t, std::string> targets_of(const Json& job) {
    std::map<int64_t, std::string> out;
    for (const Json& move : list_in(job, "moves"))
        out[member(move, "rank", int64_t{-1})] = "moves to " + member(move, "to", "?");
    return out;
}

void add_ranks(Lines& out, const Json& job) {
    add(out, fmt::format("  {:>6}  {:<20} {:>6}  {}", "RANK", "NODE", "EPOCH", "STATE"),
        LineStyle::heading);
    const auto targets = targets_of(job);
    for (const Json& rank : list_in(job, "ranks")) {
        const auto number = member(rank, "rank", int64_t{-1});
        const auto moves = targets.find(number);
        const std::string state = member(rank, "state", "running");
        add(out,
            fmt::format("  {:>6}  {:<20} {:>6}  {}", number, member(rank, "node", "?"),
                        member(rank, "epoch", int64_t{0}),
                        moves != targets.end() ? moves->second : state),
            moves != targets.end()                   ? LineStyle::busy
            : state != "running" && state != "ended" ? LineStyle::bad
                                                     : LineStyle::plain);
    }
}

void add_under_way(Lines& out, const Json& job) {
    Lines all;
    for (const Json& move : list_in(job, "moves"))
        add(all,
            fmt::format("  rank {} {} -> {}  {}  {}{}", member(move, "rank", -1),
                        member(move, "from", "?"), member(move, "to", "?"),
                        member(move, "mode", ""), member(move, "phase", "?"), amount(move)),
            LineStyle::busy);
    const Json none = Json::object();
    if (const Json now = member(job, "snapshotting", none); now.is_object() && !now.empty())
        add(all,
            fmt::format("  snapshot {}  {}{}", member(now, "name", "?"), member(now, "phase", "?"),
                        amount(now)),
            LineStyle::busy);
    if (const Json now = member(job, "restarting", none); now.is_object() && !now.empty())
        add(all,
            fmt::format("  {} from {}  {}", member(now, "recovery", false) ? "recovery" : "restart",
                        member(now, "snapshot", "?"), member(now, "phase", "?")),
            LineStyle::busy);
    for (const Json& one : list_in(job, "queue"))
        add(all, fmt::format("  waits: {} (request {})", member(one, "what", "?"),
                             member(one, "id", 0)));
    if (all.empty()) return;
    add(out, "  UNDER WAY", LineStyle::heading);
    out.insert(out.end(), all.begin(), all.end());
}

void add_snapshots(Lines& out, const Json& job) {
    const Json none = Json::object();
    if (const Json last = member(job, "snapshot", none); last.is_object() && !last.empty())
        add(out, fmt::format("  last snapshot {} of {}, to {}, {}, all ranks stood {}",
                             member(last, "snapshot", "?"), member(last, "time", "?"),
                             member(last, "level", "disk"),
                             bytes_text(member(last, "bytes", uint64_t{0})),
                             time_text(member(last, "pause_us", int64_t{0}))));
    if (const auto next = member(job, "next_snapshot_us", int64_t{-1}); next >= 0)
        add(out, fmt::format("  next snapshot in {}", time_text(next)));
    if (member(job, "stopped", false))
        add(out, "  stopped after its snapshot: SIGCONT to mpirun lets it go on", LineStyle::bad);
}

void add_job(Lines& out, const Json& job) {
    const auto ranks = list_in(job, "ranks");
    const auto running = std::ranges::count_if(
        ranks, [](const Json& rank) { return member(rank, "running", false); });
    add(out,
        fmt::format("mpirun {}  job {}  {}  {} of {} ranks run  {} nodes  epoch {}",
                    member(job, "pid", 0), member(job, "job", "?"),
                    member(job, "running", true) ? "running" : "not running", running, ranks.size(),
                    list_in(job, "nodes").size(), member(job, "epoch", int64_t{0})),
        LineStyle::title);
    add_under_way(out, job);
    add_snapshots(out, job);
    add_nodes(out, job);
    add_ranks(out, job);
}

}  // namespace

void TopFrames::add_rate(Json& move, const Sample& sample, const Sample& before) {
    if (before.bytes > sample.bytes || before.at_us >= sample.at_us) return;
    const double rate = static_cast<double>(sample.bytes - before.bytes) * 1e6 /
                        static_cast<double>(sample.at_us - before.at_us);
    if (rate < 1) return;
    move["bytes_per_s"] = static_cast<uint64_t>(std::min(rate, beyond));
    const auto total = member(move, "total", uint64_t{0});
    if (total > sample.bytes)
        move["left_us"] = static_cast<int64_t>(
            std::min(static_cast<double>(total - sample.bytes) * 1e6 / rate, beyond));
}

Json TopFrames::with_rates(const Json& jobs, int64_t now_us) {
    std::map<std::pair<int64_t, int64_t>, Sample> now;
    Json out = jobs;
    for (Json& job : out) {
        if (!job.is_object() || !job.contains("moves") || !job["moves"].is_array()) continue;
        for (Json& move : job["moves"]) {
            if (!move.is_object()) continue;
            const std::pair key(member(job, "pid", int64_t{0}), member(move, "rank", int64_t{-1}));
            const Sample sample{now_us, member(move, "bytes", uint64_t{0})};
            if (const auto before = moves_.find(key); before != moves_.end())
                add_rate(move, sample, before->second);
            now[key] = sample;
        }
    }
    moves_ = std::move(now);
    return out;
}

std::vector<FrameLine> TopFrames::frame(const Json& jobs, int64_t now_us) {
    Lines out;
    for (const Json& job : with_rates(jobs, now_us)) {
        if (!out.empty()) add(out, "");
        add_job(out, job);
    }
    return out;
}

Json TopFrames::json(const Json& jobs, int64_t now_us) {
    return {{"jobs", with_rates(jobs, now_us)}};
}

}  // namespace ghost::tools
