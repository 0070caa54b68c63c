// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/netpipe/report.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <set>

#include "benchmarks/common/plot.hpp"

namespace ghost::bench {
namespace {

using nlohmann::json;

// Of each size both were measured at.
Curve ratios_of(const Report& report, const std::string& ghost, const std::string& stock) {
    const auto mine = report.curves.find(ghost), theirs = report.curves.find(stock);
    if (mine == report.curves.end() || theirs == report.curves.end()) return {};
    return speedup(mine->second, theirs->second);
}

double ratio_of(const Report& report, const std::string& ghost, const std::string& stock) {
    return geometric_mean(ratios_of(report, ghost, stock));
}

constexpr std::pair<const char*, const char*> placements[] = {
    {"ghost, same node", "vader"},
    {"ghost, same node", "vader, no single copy"},
    {"ghost, same node", "UCX, same node"},
    {"ghost, separate nodes", "btl/tcp"},
    {"ghost, separate nodes", "UCX, separate nodes"},
    {"ghost, separate nodes", "raw TCP"}};

// Of Ghost and what it is held against, messages in turns and streams: what was measured.
struct Pair {
    std::string ghost, stock;
    Curve ratios;
};

std::vector<Pair> measured_pairs(const Report& report) {
    std::vector<Pair> pairs;
    for (const char* suffix : {"", stream_suffix}) {
        for (const auto& [ghost, stock] : placements) {
            Pair pair{std::string(ghost) + suffix, std::string(stock) + suffix, {}};
            pair.ratios = ratios_of(report, pair.ghost, pair.stock);
            if (!pair.ratios.empty()) pairs.push_back(std::move(pair));
        }
    }
    return pairs;
}

}  // namespace

json curve_json(const Curve& curve) {
    json points = json::array();
    for (const auto& [bytes, usec] : curve) points.push_back({bytes, usec});
    return points;
}

json move_json(const MoveReport& moved) {
    json result{{"name", moved.move.name},
                {"from", moved.move.old_node},
                {"to", moved.move.new_node},
                {"migration", moved.run.migration},
                {"downtimes_us", moved.downtimes_us},
                {"netpipe_exit", moved.run.netpipe_exit},
                {"before", curve_json(moved.run.before)},
                {"during", curve_json(moved.run.during)},
                {"after", curve_json(moved.run.after)},
                {"reference", curve_json(moved.reference)},
                {"after_over_before", geometric_mean(moved.ratios)}};
    if (moved.run.traffic_counted) {
        result["old_node_bytes_after"] = moved.run.old_node.other;
        result["old_node_control_bytes_after"] = moved.run.old_node.control;
        result["old_node_ending_bytes_after"] = moved.run.old_node.ending;
        result["old_node_counted_seconds"] = moved.run.counted_s;
    }
    return result;
}

namespace {

// The value of the last move that has it: the quickstart's picture is the last one made.
const MoveReport* last_counted(const Report& report) {
    for (auto it = report.moves.rbegin(); it != report.moves.rend(); ++it) {
        if (it->run.traffic_counted) return &*it;
    }
    return nullptr;
}

std::string cell(const Curve& curve, int64_t bytes) {
    auto found = curve.find(bytes);
    if (found == curve.end()) return fmt::format("{:>12}", "");
    return fmt::format("{:>12.1f}", mbps(bytes, found->second));
}

}  // namespace

std::string move_table(const MoveReport& moved) {
    std::string text = fmt::format(
        "\nrank 1 moved from {} to {} while NetPIPE ran; Mbit/s\n{:>10}{:>12}{:>12}{:>12}{:>12}"
        "{:>8}\n",
        moved.move.old_node, moved.move.new_node, "bytes", "before", "during", "after", "unmoved",
        "ratio");
    std::set<int64_t> sizes;
    for (const Curve* curve : {&moved.run.before, &moved.run.during, &moved.run.after}) {
        for (const auto& [bytes, usec] : *curve) sizes.insert(bytes);
    }
    for (int64_t bytes : sizes) {
        auto ratio = moved.ratios.find(bytes);
        text +=
            fmt::format("{:>10}{}{}{}{}{:>8}\n", bytes, cell(moved.run.before, bytes),
                        cell(moved.run.during, bytes), cell(moved.run.after, bytes),
                        cell(moved.reference, bytes),
                        ratio == moved.ratios.end() ? "" : fmt::format("{:.2f}", ratio->second));
    }
    return text;
}

namespace {

// Times of ghost and stock, and their ratio.
std::string stock_table(const Report& report) {
    std::string text;
    for (const auto& [ghost, stock, ratios] : measured_pairs(report)) {
        text += fmt::format("\n{} and {}; µs, and the speed against it\n{:>10}{:>12}{:>12}{:>8}\n",
                            ghost, stock, "bytes", "ghost", "stock", "ratio");
        for (const auto& [bytes, ratio] : ratios)
            text += fmt::format("{:>10}{:>12.2f}{:>12.2f}{:>8.2f}\n", bytes,
                                report.curves.at(ghost).at(bytes),
                                report.curves.at(stock).at(bytes), ratio);
    }
    return text;
}

// The median; 0 of none.
double middle(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

std::string number(double value, const char* unit) {
    return value > 0 ? fmt::format("{:.2f}{}", value, unit) : std::string("not measured");
}

}  // namespace

double after_over_before(const Report& report, Curve MoveReport::*ratios) {
    double sum = 0;
    size_t count = 0;
    for (const MoveReport& moved : report.moves) {
        for (const auto& [bytes, ratio] : moved.*ratios) sum += std::log(ratio);
        count += (moved.*ratios).size();
    }
    return count == 0 ? 0 : std::exp(sum / static_cast<double>(count));
}

json to_json(const Report& report) {
    json result{{"size", report.size}, {"curves", json::object()}, {"moves", json::array()}};
    for (const auto& [name, curve] : report.curves) result["curves"][name] = curve_json(curve);
    for (const MoveReport& moved : report.moves) result["moves"].push_back(move_json(moved));
    result["speeds"] = json::object();
    for (const auto& [ghost, stock, ratios] : measured_pairs(report))
        result["speeds"][ghost + " / " + stock] = geometric_mean(ratios);
    result["ghost_over_stock_same_node"] = ratio_of(report, "ghost, same node", "vader");
    result["ghost_over_stock_separate_nodes"] =
        ratio_of(report, "ghost, separate nodes", "btl/tcp");
    if (report.curves.count("raw TCP") != 0) {
        result["ghost_over_raw_tcp"] = ratio_of(report, "ghost, separate nodes", "raw TCP");
    }
    if (!report.moves.empty()) {
        const MoveReport& last = report.moves.back();
        result["netpipe_exit"] = last.run.netpipe_exit;
        result["downtime_us"] = middle(last.downtimes_us);
        result["after_over_before"] = after_over_before(report);
        result["after_over_before_best"] = after_over_before(report, &MoveReport::best_ratios);
    }
    if (const MoveReport* counted = last_counted(report)) {
        result["old_node_bytes_after"] = counted->run.old_node.other;
        result["old_node_control_bytes_after"] = counted->run.old_node.control;
    }
    if (report.heartbeat) {
        result["heartbeat"] = *report.heartbeat;
        result["partner_downtime_us"] = report.heartbeat->value("longest_us", 0.0);
    }
    return result;
}

std::string to_table(const Report& report) {
    std::string text;
    for (const MoveReport& moved : report.moves) text += move_table(moved);
    text += stock_table(report);
    const json all = to_json(report);
    text += "\nratios are geometric means over the sizes; above 1: faster\n";
    auto row = [&](const char* what, const std::string& value) {
        text += fmt::format("  {:<52}{}\n", what, value);
    };
    if (!report.moves.empty()) {
        row("after / before, same placement", number(all.value("after_over_before", 0.0), ""));
        row("  the best run of each", number(all.value("after_over_before_best", 0.0), ""));
        row("downtime, median", number(all.value("downtime_us", 0.0) / 1000, " ms"));
    }
    if (report.heartbeat) {
        row("longest wait of the partner in a migration, median",
            number(all.value("partner_downtime_us", 0.0) / 1000, " ms"));
    }
    for (const auto& [ghost, stock, ratios] : measured_pairs(report)) {
        row(fmt::format("{} / {}", ghost, stock).c_str(), number(geometric_mean(ratios), ""));
        row("  the slowest size", slowest(ratios));
    }
    if (const MoveReport* counted = last_counted(report)) {
        row("bytes to or from the old node's ranks afterwards",
            fmt::format("{} (ends of connections: {}, daemons: {} in {:.1f} s); then its network "
                        "was cut",
                        counted->run.old_node.other, counted->run.old_node.ending,
                        counted->run.old_node.control, counted->run.counted_s));
    }
    return text;
}

Status draw(const Report& report, const std::string& svg) {
    Picture picture{"NetPIPE, before, during and after a live migration", false, {}};
    for (const auto& [name, curve] : report.curves) picture.drawn.push_back({name, curve, false});
    for (const MoveReport& moved : report.moves) {
        picture.drawn.push_back({moved.move.name + ": before", moved.run.before, true});
        picture.drawn.push_back({moved.move.name + ": during", moved.run.during, true});
        picture.drawn.push_back({moved.move.name + ": after", moved.run.after, true});
    }
    return draw(picture, svg);
}

}  // namespace ghost::bench
