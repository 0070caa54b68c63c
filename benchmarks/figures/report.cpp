// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/figures/report.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>
#include <set>

#include "benchmarks/common/plot.hpp"

namespace ghost::bench {
namespace {

using nlohmann::json;

std::string title_of(const Pair& pair) {
    std::string title = fmt::format("{} / {}", name_of(pair.mine), name_of(pair.theirs));
    return pair.from > 1 ? title + fmt::format(", from {} bytes", pair.from) : title;
}

json pair_json(const PairRatio& ratio) {
    return {{"pair", title_of(ratio.pair)},
            {"geometric_mean", geometric_mean(ratio.ratios)},
            {"slowest", slowest(ratio.ratios)},
            {"mark", ratio.pair.mark}};
}

// Of the largest message, if it is a large one.
double share_of_largest(const Wire& wire, const Curve& curve) {
    if (curve.empty() || curve.rbegin()->first < large) return 0;
    return share_of_rate(wire, curve.rbegin()->first, curve.rbegin()->second);
}

json wire_json(const WireReport& report) {
    json result{{"wire", report.wire.name},
                {"figure", report.wire.figure},
                {"curves", json::object()},
                {"ratios", json::array()}};
    for (const auto& [kind, curve] : report.curves) {
        result["curves"][name_of(kind)] = curve_json(curve);
        if (const double share = share_of_largest(report.wire, curve); share > 0)
            result["share_of_rate"][name_of(kind)] = share;
    }
    for (const PairRatio& ratio : pair_ratios(report.curves))
        result["ratios"].push_back(pair_json(ratio));
    return result;
}

double share_of(const FairnessReport& report, size_t i) {
    const double all = std::accumulate(report.mbps.begin(), report.mbps.end(), 0.0);
    return all > 0 ? report.mbps[i] / all : 0;
}

json fairness_json(const FairnessReport& report) {
    json streams = json::array();
    for (size_t i = 0; i < report.kinds.size(); ++i)
        streams.push_back({{"stream", name_of(report.kinds[i])},
                           {"mbps", report.mbps[i]},
                           {"share", share_of(report, i)}});
    return {{"wire", report.wire}, {"streams", streams}};
}

std::string times_table(const WireReport& report) {
    std::string text = fmt::format("\nfigure {}, {}: µs for one way\n{:>10}", report.wire.figure,
                                   report.wire.name, "bytes");
    std::set<int64_t> sizes;
    for (const auto& [kind, curve] : report.curves) {
        text += fmt::format("{:>20}", name_of(kind));
        for (const auto& [bytes, usec] : curve) sizes.insert(bytes);
    }
    text += "\n";
    for (int64_t bytes : sizes) {
        if ((bytes & (bytes - 1)) != 0) continue;  // the JSON has them all
        text += fmt::format("{:>10}", bytes);
        for (const auto& [kind, curve] : report.curves) {
            const auto found = curve.find(bytes);
            text += found == curve.end() ? fmt::format("{:>20}", "")
                                         : fmt::format("{:>20.2f}", found->second);
        }
        text += "\n";
    }
    return text;
}

std::string ratios_table(const WireReport& report) {
    std::string text;
    for (const PairRatio& ratio : pair_ratios(report.curves)) {
        if (ratio.ratios.empty()) continue;
        text += fmt::format("  {:<48}{:>6.2f}  slowest {}{}\n", title_of(ratio.pair),
                            geometric_mean(ratio.ratios), slowest(ratio.ratios),
                            ratio.pair.mark > 0 ? fmt::format("  (mark {})", ratio.pair.mark) : "");
    }
    return text;
}

std::string shares_table(const WireReport& report) {
    std::string text;
    for (const auto& [kind, curve] : report.curves) {
        const double share = share_of_largest(report.wire, curve);
        if (share <= 0) continue;
        text += fmt::format(
            "  {:<48}{:>6.3f}  {:.3f} of what TCP's packets can carry{}\n",
            fmt::format("{}, share of the rate at {}", name_of(kind), curve.rbegin()->first), share,
            share / payload_limit(), kind == Kind::kernet_mpi ? "  (mark 0.98)" : "");
    }
    return text;
}

std::string fairness_table(const FairnessReport& report) {
    std::string text = fmt::format("  {}:", report.wire);
    for (size_t i = 0; i < report.kinds.size(); ++i)
        text += fmt::format("  {} {:.1f} Mbit/s ({:.2f})", name_of(report.kinds[i]), report.mbps[i],
                            share_of(report, i));
    return text + "\n";
}

Picture picture_of(const WireReport& report) {
    Picture picture{
        fmt::format("RR-4987, figure {}: {}", report.wire.figure, report.wire.name), true, {}};
    for (const auto& [kind, curve] : report.curves)
        picture.drawn.push_back({name_of(kind), curve, false});
    return picture;
}

// Figure 8d: MPI on every wire.
Picture picture_of_mpi(const FiguresReport& report) {
    Picture picture{"RR-4987, figure 8d: MPI, stock and on KerNet", true, {}};
    for (const WireReport& wire : report.wires)
        for (const auto& [kind, curve] : wire.curves)
            if (kind == Kind::stock_mpi || kind == Kind::kernet_mpi)
                picture.drawn.push_back(
                    {fmt::format("{}, {}", name_of(kind), wire.wire.name), curve, false});
    return picture;
}

Picture picture_of_moves(const FiguresReport& report) {
    Picture picture{fmt::format("RR-4987, figure 9: before, during and after a migration, {}",
                                report.moves_wire),
                    false,
                    {}};
    for (const MoveReport& moved : report.moves) {
        picture.drawn.push_back({moved.move.name + ": unmoved", moved.reference, false});
        picture.drawn.push_back({moved.move.name + ": before", moved.run.before, true});
        picture.drawn.push_back({moved.move.name + ": during", moved.run.during, true});
        picture.drawn.push_back({moved.move.name + ": after", moved.run.after, true});
    }
    return picture;
}

double median_ms(std::vector<double> us) {
    std::sort(us.begin(), us.end());
    return us.empty() ? 0 : us[us.size() / 2] / 1000;
}

}  // namespace

json to_json(const FiguresReport& report) {
    json result{{"size", report.size},
                {"wires", json::array()},
                {"fairness", json::array()},
                {"moves_wire", report.moves_wire},
                {"moves", json::array()}};
    for (const WireReport& wire : report.wires) result["wires"].push_back(wire_json(wire));
    for (const auto& shared : report.fairness) result["fairness"].push_back(fairness_json(shared));
    for (const MoveReport& moved : report.moves) result["moves"].push_back(move_json(moved));
    return result;
}

std::string to_table(const FiguresReport& report) {
    std::string text;
    for (const WireReport& wire : report.wires)
        text += times_table(wire) + "  speeds, geometric means; above 1: faster\n" +
                ratios_table(wire) + shares_table(wire);
    if (!report.fairness.empty()) text += "\nstreams at once on one wire\n";
    for (const auto& shared : report.fairness) text += fairness_table(shared);
    for (const MoveReport& moved : report.moves)
        text += move_table(moved) +
                fmt::format("  figure 9, {}, {}: after / before {:.2f}, downtime {:.1f} ms\n",
                            report.moves_wire, moved.move.name, geometric_mean(moved.ratios),
                            median_ms(moved.downtimes_us));
    return text;
}

Status draw_figures(const FiguresReport& report, const std::string& folder) {
    std::vector<std::pair<std::string, Picture>> pictures;
    for (const WireReport& wire : report.wires) {
        const std::string figure = wire.wire.figure;
        pictures.emplace_back(figure == "8d" ? "8-unshaped" : figure, picture_of(wire));
    }
    pictures.emplace_back("8d", picture_of_mpi(report));
    pictures.emplace_back("9", picture_of_moves(report));
    for (const auto& [name, picture] : pictures)
        if (!picture.drawn.empty()) GHOST_TRY(draw(picture, folder + "/" + name + ".svg"));
    return {};
}

}  // namespace ghost::bench
