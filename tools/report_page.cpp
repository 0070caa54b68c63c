// SPDX-License-Identifier: BSD-3-Clause
#include "tools/report_page.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "tools/terminal.hpp"

namespace ghost::tools {
namespace {

using plugin::Event;
using plugin::EventKind;

// Of the picture, in pixels.
constexpr double left = 80, right = 20, top = 24, below = 24, width = 1000;
constexpr double lane = 14, bar = 10;
constexpr double least_mark = 2;  // of what lasts no time
constexpr size_t most_lanes = 512, most_rows = 5000, most_names = 64;
constexpr int marks_on_axis = 5;

constexpr const char* head = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{0}</title>
<style>
body {{ font: 14px/1.4 sans-serif; margin: 2em; color: #222; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: 2px 12px 2px 0; vertical-align: top; }}
td.time {{ white-space: nowrap; color: #666; }}
tr.bad td {{ color: #a00; }}
svg {{ background: #fafafa; border: 1px solid #ddd; }}
svg text {{ font: 11px sans-serif; fill: #444; }}
.node {{ display: inline-block; margin-right: 1.2em; }}
.node i {{ display: inline-block; width: 1em; height: 1em; margin-right: .3em; }}
</style></head><body>
<h1>{0}</h1>
)";

// Hues far from each other, however many there are (the golden angle).
std::string colour(size_t node) {
    return fmt::format("hsl({:.0f},55%,62%)", static_cast<double>(node % 1000) * 137.508);
}

bool is_bad(const Event& event) {
    switch (event.kind()) {
        case EventKind::no_move:
        case EventKind::no_snapshot:
        case EventKind::no_drain:
        case EventKind::no_grow:
        case EventKind::node_lost:
        case EventKind::rank_lost:
            return true;
        case EventKind::ranks_ended:
        case EventKind::ended:
            return event.status.value_or(0) != 0;
        default:
            return event.harmed.value_or(false);
    }
}

class Picture {
  public:
    explicit Picture(const JobHistory& history) : h_(history) {
        for (const auto& [rank, stays] : h_.ranks)
            if (lanes_.size() < most_lanes) lanes_.emplace(rank, lanes_.size());
    }

    std::string svg() {
        const double height = top + lane * static_cast<double>(lanes_.size()) + below;
        out_ = fmt::format(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {0} {1}\" "
            "width=\"{0}\" height=\"{1}\"><title>Ranks over nodes in time</title>\n",
            width, height);
        axis(height);
        for (const auto& [rank, number] : lanes_) draw_rank(rank, number);
        for (const Event& event : h_.events) draw_event(event, height);
        return out_ + "</svg>\n";
    }

  private:
    double x(int64_t us) const {
        const auto span = static_cast<double>(std::max<int64_t>(h_.lasted_us(), 1));
        const double part = static_cast<double>(us - h_.began_us) / span;
        return left + std::clamp(part, 0.0, 1.0) * (width - left - right);
    }
    static double y(size_t number) { return top + lane * static_cast<double>(number); }

    void box(double x, double y, double w, double h, const std::string& fill,
             const std::string& title) {
        out_ += fmt::format(
            "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\">"
            "<title>{}</title></rect>\n",
            x, y, std::max(w, 0.5), h, fill, escape_html(title));
    }

    void axis(double height) {
        for (int i = 0; i <= marks_on_axis; ++i) {
            const int64_t at = h_.lasted_us() / marks_on_axis * i;
            out_ += fmt::format(
                "<line x1=\"{0:.2f}\" x2=\"{0:.2f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#ddd\"/>"
                "<text x=\"{0:.2f}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>\n",
                x(h_.began_us + at), top, height - below, height - 8, escape_html(time_text(at)));
        }
    }

    void draw_rank(uint32_t rank, size_t number) {
        out_ += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">rank {}</text>\n",
                            left - 8, y(number) + bar, rank);
        for (const Stay& stay : h_.ranks.at(rank))
            box(x(stay.from_us), y(number), x(stay.until_us) - x(stay.from_us), bar,
                colour(stay.node),
                fmt::format("rank {} on {}, {}", rank, h_.nodes[stay.node],
                            time_text(stay.until_us - stay.from_us)));
    }

    void draw_event(const Event& event, double height) {
        const int64_t at = std::max(event.at_us(), h_.began_us);
        switch (event.kind()) {
            case EventKind::move:
            case EventKind::no_move:
                return draw_move(event, at);
            case EventKind::snapshot:
                return span(at, event.pause_us.value_or(0), height, "#225", words_of(event));
            case EventKind::recovered:
                return span(at, event.total_us.value_or(0), height, "#c60", words_of(event));
            case EventKind::no_snapshot:
            case EventKind::node_lost:
            case EventKind::rank_lost:
                return span(at, 0, height, "#a00", words_of(event));
            default:
                return;
        }
    }
    // From top to bottom.
    void span(int64_t at, int64_t lasted, double height, const char* fill,
              const std::string& title) {
        const double w = std::max(x(at) - x(at - lasted), least_mark);
        box(x(at) - w, top - 6, w, height - top - below + 6, fill, title);
    }
    // The time for which it stood, or where it was tried.
    void draw_move(const Event& event, int64_t at) {
        const auto found = lanes_.find(event.rank.value_or(0));
        if (!event.rank || found == lanes_.end()) return;
        const double w = std::max(x(at) - x(at - event.downtime_us.value_or(0)), least_mark);
        const bool moved = event.kind() == EventKind::move;
        box(x(at) - w, y(found->second) - 1, w, bar + 2, moved ? "#111" : "#a00", words_of(event));
    }

    const JobHistory& h_;
    std::map<uint32_t, size_t> lanes_;
    std::string out_;
};

void add_row(std::string& out, const char* name, const std::string& value) {
    out += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", name, escape_html(value));
}

std::string levels(const JobHistory& h) {
    std::string out;
    for (const auto& [level, count] : h.levels) out += fmt::format("; {}: {}", level, count);
    return out;
}

std::string summary(const JobHistory& h) {
    std::string out = "<table>\n";
    add_row(out, "Program", fmt::format("{}, {} ranks", h.program, h.ranks.size()));
    add_row(out, "mpirun", fmt::format("{} on {}", h.pid, h.host));
    add_row(out, "Began", short_time(h.began_us) + " UTC");
    add_row(out, "State", fmt::format("{}, after {}", state_of(h), time_text(h.lasted_us())));
    if (!h.restarted_from.empty()) add_row(out, "Restarted from", h.restarted_from);
    add_row(out, "Moves",
            fmt::format("{} ({} did not happen), {}, longest stop {}", h.moves, h.moves_failed,
                        bytes_text(h.bytes_moved), time_text(h.longest_downtime_us)));
    add_row(out, "Snapshots",
            fmt::format("{} ({} not made{}), longest pause {}", h.snapshots, h.snapshots_failed,
                        levels(h), time_text(h.longest_pause_us)));
    if (h.recoveries > 0)
        add_row(out, "Recoveries",
                fmt::format("{}, {} in all; {} were computed again", h.recoveries,
                            time_text(h.recovered_us), time_text(h.redone_us)));
    if (h.unread > 0 || h.cut)
        add_row(out, "Log",
                fmt::format("{} lines could not be read{}", h.unread,
                            h.cut ? "; there is more than is shown" : ""));
    return out + "</table>\n";
}

std::string legend(const JobHistory& h) {
    std::string out = "<p>";
    for (size_t node = 0; node < std::min(h.nodes.size(), most_names); ++node)
        out += fmt::format("<span class=\"node\"><i style=\"background:{}\"></i>{}</span>",
                           colour(node), escape_html(h.nodes[node]));
    if (h.nodes.size() > most_names) out += fmt::format("and {} more", h.nodes.size() - most_names);
    out +=
        "</p>\n<p>Black: a rank stands while it moves; red: it did not move. Lines from top to "
        "bottom: all ranks stand for a snapshot; red: none was made, or a node was lost; orange: "
        "a recovery.";
    if (h.ranks.size() > most_lanes)
        out += fmt::format(" The first {} ranks are shown.", most_lanes);
    return out + "</p>\n";
}

std::string table(const JobHistory& h) {
    std::string out = "<h2>Events</h2>\n<table>\n";
    const size_t first = h.events.size() > most_rows ? h.events.size() - most_rows : 0;
    if (first > 0) out += fmt::format("<tr><td colspan=\"2\">… {} before</td></tr>\n", first);
    for (size_t i = first; i < h.events.size(); ++i)
        out += fmt::format("<tr{}><td class=\"time\">{}</td><td>{}</td></tr>\n",
                           is_bad(h.events[i]) ? " class=\"bad\"" : "",
                           escape_html(h.events[i].time), escape_html(words_of(h.events[i])));
    return out + "</table>\n";
}

}  // namespace

std::string escape_html(const std::string& text) {
    std::string out;
    for (const char c : harmless(text)) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            case '\'':
                out += "&#39;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

std::string report_page(const JobHistory& history) {
    std::string out = fmt::format(head, escape_html("Job " + history.job));
    out += summary(history);
    out += "<h2>Ranks over nodes</h2>\n" + Picture(history).svg() + legend(history);
    return out + table(history) + "</body></html>\n";
}

}  // namespace ghost::tools
