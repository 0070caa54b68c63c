// SPDX-License-Identifier: BSD-3-Clause
// What figures leaves: JSON, tables on the terminal, an SVG for each figure.
#pragma once

#include <string>
#include <vector>

#include "benchmarks/figures/wires.hpp"
#include "base/json.hpp"
#include "benchmarks/netpipe/report.hpp"

namespace ghost::bench {

struct WireReport {
    Wire wire;
    Curves curves;  // medians
};

// Streams that shared a wire.
struct FairnessReport {
    std::string wire;
    std::vector<Kind> kinds;
    std::vector<double> mbps;  // medians, in the order of `kinds`
};

struct FiguresReport {
    std::string size;
    std::vector<WireReport> wires;
    std::vector<FairnessReport> fairness;
    std::string moves_wire;
    std::vector<MoveReport> moves;
};

nlohmann::json to_json(const FiguresReport& report);
// Times of every size, the ratios of all pairs, shares of the wires, fairness, moves.
std::string to_table(const FiguresReport& report);
// FIGURE.svg in the folder, for each figure something was measured of.
Status draw_figures(const FiguresReport& report, const std::string& folder);

}  // namespace ghost::bench
