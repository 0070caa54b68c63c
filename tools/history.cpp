// SPDX-License-Identifier: BSD-3-Clause
#include "tools/history.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/clock.hpp"
#include "base/schema_json.hpp"
#include "base/utc.hpp"
#include "pmix-plugin/events/files.hpp"
#include "tools/terminal.hpp"

namespace ghost::tools {

using Json = nlohmann::json;
using plugin::Event;
using plugin::EventKind;
using plugin::EventsFile;

namespace {

constexpr size_t most_stays = 1'000'000;  // that are kept of a log

// Follows the ranks through a log.
class Reading {
  public:
    explicit Reading(JobHistory& history) : h_(history) {}

    void take(const Event& event) {
        const int64_t at = std::max(event.at_us(), h_.last_us);  // clocks are set back at times
        if (h_.began_us == 0) h_.began_us = at;
        h_.last_us = at;
        switch (event.kind()) {
            case EventKind::started:
                return started(event, at);
            case EventKind::restarted:
                h_.restarted_from = event.snapshot.value_or("?");
                return;
            case EventKind::recovered:
                ++h_.recoveries;
                h_.recovered_us += event.total_us.value_or(0);
                h_.redone_us += event.redone_us.value_or(0);
                return started(event, at);
            case EventKind::move:
                return moved(event, at);
            case EventKind::no_move:
                ++h_.moves_failed;
                return;
            case EventKind::snapshot:
                ++h_.snapshots;
                if (event.level) ++h_.levels[*event.level];
                h_.longest_pause_us = std::max(h_.longest_pause_us, event.pause_us.value_or(0));
                return;
            case EventKind::no_snapshot:
                ++h_.snapshots_failed;
                return;
            case EventKind::node_joined:
                node(event.node.value_or("?"));
                return;
            case EventKind::ranks_ended:
                for (const uint32_t rank : event.which) leave(rank, at);
                return;
            case EventKind::ended:
                h_.ended = true;
                h_.status = event.status;
                return leave_all(at);
            default:
                return;
        }
    }
    void finish() { leave_all(h_.last_us); }

  private:
    size_t node(const std::string& name) {
        const auto [known, added] = numbers_.try_emplace(name, h_.nodes.size());
        if (added) h_.nodes.push_back(name);
        return known->second;
    }
    void leave(uint32_t rank, int64_t at) {
        const auto found = now_.find(rank);
        if (found == now_.end()) return;
        found->second.until_us = at;
        if (stays_++ < most_stays) h_.ranks[rank].push_back(found->second);
        now_.erase(found);
    }
    void leave_all(int64_t at) {
        while (!now_.empty()) leave(now_.begin()->first, at);
    }
    void enter(uint32_t rank, size_t node, int64_t at) {
        const auto found = now_.find(rank);
        if (found != now_.end() && found->second.node == node) return;
        leave(rank, at);
        now_[rank] = {node, at, at};
    }
    // The log may have several: each part of it begins so, and each life of the job.
    void started(const Event& event, int64_t at) {
        h_.job = event.job.value_or(h_.job);
        h_.host = event.host.value_or(h_.host);
        h_.program = event.program.value_or(h_.program);
        h_.pid = event.pid.value_or(h_.pid);
        h_.ended = false;
        h_.status.reset();
        const std::string life = event.life.value_or("");
        if (life != life_) leave_all(at);
        life_ = life;
        for (const plugin::NodePlace& place : event.places) {
            const size_t there = node(place.node);
            for (const uint32_t rank : place.ranks) enter(rank, there, at);
        }
    }
    void moved(const Event& event, int64_t at) {
        ++h_.moves;
        h_.bytes_moved += event.bytes.value_or(0);
        h_.longest_downtime_us = std::max(h_.longest_downtime_us, event.downtime_us.value_or(0));
        if (event.rank && event.to) enter(*event.rank, node(*event.to), at);
    }

    JobHistory& h_;
    std::map<std::string, size_t> numbers_;
    std::map<uint32_t, Stay> now_;
    std::string life_;
    size_t stays_ = 0;
};

Result<JobHistory> history_in(const EventsFile& file) {
    auto text = plugin::read_own_log(file.path);
    if (!text.ok()) return text.error();
    JobHistory out = history_of(plugin::read_events(text->text), text->running ? realtime_us() : 0);
    out.path = file.path;
    out.running = text->running;
    out.cut = out.cut || text->cut;
    if (out.job.empty()) out.job = file.job;
    if (out.pid == 0) out.pid = file.pid;
    return out;
}

// As mpirun of this user finds it.
Result<std::vector<EventsFile>> files() {
    const char* set = std::getenv("OMPI_MCA_ghost_events");
    auto folder =
        plugin::events_folder(set != nullptr ? std::optional<std::string>(set) : std::nullopt);
    if (!folder.ok()) return folder.error();
    if (folder->empty()) return std::vector<EventsFile>();
    auto all = plugin::list_events_files(*folder);
    if (!all.ok() && all.error().code == Code::not_found) return std::vector<EventsFile>();
    return all;
}

std::string ranks_text(const std::vector<uint32_t>& ranks) {
    constexpr size_t most = 20;  // that are named
    const std::vector<uint32_t> first(ranks.begin(), ranks.begin() + std::min(ranks.size(), most));
    return fmt::format("rank{} {}{}", ranks.size() == 1 ? "" : "s", fmt::join(first, ", "),
                       ranks.size() > most ? fmt::format(" and {} more", ranks.size() - most) : "");
}

// --- words ---

std::string because(const Event& e) {
    std::string text = e.why ? ": " + *e.why : "";
    if (e.harmed.value_or(false)) text += " (the job was harmed)";
    return text;
}

std::string route_of(const Event& e) {
    return fmt::format("rank {}{}{}", e.rank.value_or(0), e.from ? " from " + *e.from : "",
                       e.to && !e.to->empty() ? " to " + *e.to : "");
}

std::string took(const Event& e) {
    return e.total_us ? fmt::format(", in {}", time_text(*e.total_us)) : "";
}

std::string redone(const Event& e) {
    return e.redone_us ? fmt::format(", {} are computed again", time_text(*e.redone_us)) : "";
}

std::string by(const Event& e) {
    return e.asked_by && !e.asked_by->empty() ? fmt::format(" (by {})", *e.asked_by) : "";
}

std::string words_of_move(const Event& e) {
    return fmt::format("{} moved, {}, {}, stood {}{}", route_of(e), e.mode.value_or("?"),
                       bytes_text(e.bytes.value_or(0)), time_text(e.downtime_us.value_or(0)),
                       took(e));
}

std::string words_of_snapshot(const Event& e) {
    return fmt::format("snapshot {} is complete, {}, {}, all ranks stood {}{}{}",
                       e.snapshot.value_or("?"), e.kind_of.value_or("?"),
                       bytes_text(e.bytes.value_or(0)), time_text(e.pause_us.value_or(0)), took(e),
                       by(e));
}

std::string words_of_start(const Event& e) {
    return fmt::format("job {} runs, {} ranks of {}, mpirun {} on {}", e.job.value_or("?"),
                       e.ranks.value_or(0), e.program.value_or("a program"), e.pid.value_or(0),
                       e.host.value_or("?"));
}

std::string raw_words_of(const Event& e) {
    const std::string node = e.node.value_or("?");
    switch (e.kind()) {
        case EventKind::started:
            return words_of_start(e);
        case EventKind::restarted:
            return fmt::format("the job goes on from snapshot {}{}", e.snapshot.value_or("?"),
                               took(e));
        case EventKind::recovered:
            return fmt::format("the job goes on from snapshot {}{}{}{}", e.snapshot.value_or("?"),
                               took(e), redone(e), because(e));
        case EventKind::restart:
            return fmt::format("a restart from snapshot {} begins{}", e.snapshot.value_or("?"),
                               by(e));
        case EventKind::asked:
            return fmt::format("asked for: {} (request {})", e.what.value_or("?"),
                               e.id.value_or(0));
        case EventKind::cancelled:
            return fmt::format("cancelled: {} (request {})", e.what.value_or("?"),
                               e.id.value_or(0));
        case EventKind::moving:
            return fmt::format("{} begins to move, {}", route_of(e), e.mode.value_or("?"));
        case EventKind::move:
            return words_of_move(e);
        case EventKind::not_live:
            return fmt::format("{} does not move live, so it is stopped for it{}", route_of(e),
                               because(e));
        case EventKind::no_move:
            return fmt::format("{} has not moved{}", route_of(e), because(e));
        case EventKind::snapshotting:
            return "a snapshot begins" + by(e);
        case EventKind::snapshot:
            return words_of_snapshot(e);
        case EventKind::no_snapshot:
            return fmt::format("no snapshot was made{}{}", by(e), because(e));
        case EventKind::interval:
            return fmt::format("snapshots are {} apart: each costs {}, a loss is expected every {}",
                               time_text(e.interval_us.value_or(0)),
                               time_text(e.cost_us.value_or(0)), time_text(e.mtbf_us.value_or(0)));
        case EventKind::continued:
            return "the job goes on";
        case EventKind::draining:
            return fmt::format("node {} is being drained", node);
        case EventKind::drained:
            return fmt::format("node {} is drained", node);
        case EventKind::no_drain:
            return fmt::format("node {} is not drained{}", node, because(e));
        case EventKind::joining:
            return fmt::format("node {} is about to join", node);
        case EventKind::node_joined:
            return fmt::format("node {} has joined, with room for {}{}", node, e.slots.value_or(0),
                               took(e));
        case EventKind::no_grow:
            return fmt::format("node {} has not joined{}", node, because(e));
        case EventKind::node_left:
            return fmt::format("node {} has left the job", node);
        case EventKind::node_lost:
            return fmt::format("node {} is lost{}", node,
                               e.which.empty() ? "" : ", and with it " + ranks_text(e.which));
        case EventKind::rank_lost:
            return fmt::format("rank {} is lost with status {}", e.rank.value_or(0),
                               e.status.value_or(0));
        case EventKind::ranks_ended:
            return fmt::format("{} ended with status {}", ranks_text(e.which),
                               e.status.value_or(0));
        case EventKind::ended:
            return e.status ? fmt::format("mpirun ends with status {}", *e.status) : "mpirun ends";
        case EventKind::other:
            return fmt::format("{} (of a newer Ghost)", e.event);
    }
    return e.event;
}

}  // namespace

JobHistory history_of(plugin::EventsRead log, int64_t now_us) {
    JobHistory out;
    out.events = std::move(log.events);
    out.unread = log.unread;
    out.cut = log.cut;
    Reading reading(out);
    for (const Event& event : out.events) reading.take(event);
    out.last_us = std::max(out.last_us, now_us);
    reading.finish();
    return out;
}

Result<std::vector<JobHistory>> all_histories(std::vector<std::string>& unreadable) {
    const auto all = files();
    if (!all.ok()) return all.error();
    std::vector<JobHistory> out;
    for (const EventsFile& file : *all) {
        auto history = history_in(file);
        history.ok() ? out.push_back(std::move(*history))
                     : unreadable.push_back(history.error().message());
    }
    return out;
}

Result<JobHistory> find_history(const std::string& job) {
    const auto all = files();
    if (!all.ok()) return all.error();
    for (const EventsFile& file : *all)
        if (job.empty() || file.job == job || std::to_string(file.pid) == job)
            return history_in(file);
    return make_error(Code::not_found, "find the event log of job", job.empty() ? "(any)" : job,
                      "there is none in this user's folder (`ghost ps --history` lists all)");
}

Result<JobHistory> read_history(const std::string& path) {
    auto text = plugin::read_any_log(path);
    if (!text.ok()) return text.error();
    JobHistory out = history_of(plugin::read_events(text->text));
    out.path = path;
    out.cut = out.cut || text->cut;
    if (out.events.empty())
        return make_error(Code::invalid, "read the event log", path,
                          "no line of it is an event of a job");
    return out;
}

// --- as it is shown ---

std::string harmless(std::string text) {
    for (char& c : text)
        if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
    // C1 controls are two bytes in UTF-8
    for (size_t at = 0; (at = text.find('\xc2', at)) != std::string::npos; ++at)
        if (at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) < 0xa0)
            text.replace(at, 2, "?");
    return text;
}

std::string words_of(const Event& event) {
    return harmless(raw_words_of(event));
}

std::string short_time(int64_t us) {
    std::string text = utc_text(us);
    text[10] = ' ';
    return text.substr(0, text.find('.'));
}

std::string state_of(const JobHistory& h) {
    if (h.running) return "running";
    if (!h.ended) return "mpirun was killed";
    return h.status ? fmt::format("ended with status {}", *h.status) : "ended";
}

std::string line_about(const JobHistory& h) {
    const auto count = [](size_t n, const char* what) {
        return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
    };
    std::string text = fmt::format(
        "{}  job {}  mpirun {} on {}  {} of {}  {}, {}  {}, {}", short_time(h.began_us), h.job,
        h.pid, h.host, count(h.ranks.size(), "rank"), h.program, state_of(h),
        time_text(h.lasted_us()), count(h.moves, "move"), count(h.snapshots, "snapshot"));
    if (h.recoveries > 0)
        text += fmt::format(", {} recover{}", h.recoveries, h.recoveries == 1 ? "y" : "ies");
    if (!h.restarted_from.empty()) text += "  from " + h.restarted_from;
    return harmless(text);
}

Json history_json(const JobHistory& h, bool whole) {
    Json out = {{"job", h.job},
                {"pid", h.pid},
                {"host", h.host},
                {"program", h.program},
                {"log", h.path},
                {"began", utc_text(h.began_us)},
                {"running", h.running},
                {"state", state_of(h)},
                {"lasted_us", h.lasted_us()},
                {"ranks", h.ranks.size()},
                {"nodes", h.nodes},
                {"moves", h.moves},
                {"moves_failed", h.moves_failed},
                {"bytes_moved", h.bytes_moved},
                {"longest_downtime_us", h.longest_downtime_us},
                {"snapshots", h.snapshots},
                {"snapshots_failed", h.snapshots_failed},
                {"levels", h.levels},
                {"recoveries", h.recoveries},
                {"recovered_us", h.recovered_us},
                {"redone_us", h.redone_us},
                {"longest_pause_us", h.longest_pause_us},
                {"unread", h.unread},
                {"cut", h.cut}};
    if (!h.running) out["ended"] = utc_text(h.last_us);
    if (h.status) out["status"] = *h.status;
    if (!h.restarted_from.empty()) out["restarted_from"] = h.restarted_from;
    if (!whole) return out;
    out["stays"] = Json::array();
    for (const auto& [rank, stays] : h.ranks)
        for (const Stay& stay : stays)
            out["stays"].push_back({{"rank", rank},
                                    {"node", h.nodes[stay.node]},
                                    {"from", utc_text(stay.from_us)},
                                    {"until", utc_text(stay.until_us)}});
    out["events"] = Json::array();
    for (const Event& event : h.events) {
        Json one = schema::to_json(event);
        one["words"] = words_of(event);
        out["events"].push_back(std::move(one));
    }
    return out;
}

}  // namespace ghost::tools
