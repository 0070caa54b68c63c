// SPDX-License-Identifier: BSD-3-Clause
// What a benchmark leaves: JSON, a table on the terminal, an SVG.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "benchmarks/netpipe/migration.hpp"

namespace ghost::bench {

// What the names of curves of streams end in.
inline constexpr const char* stream_suffix = ", stream";

struct Report {
    std::string size;
    std::map<std::string, Curve> curves;  // by transport, medians
    std::vector<MoveReport> moves;
    std::optional<nlohmann::json> heartbeat;
};

// The geometric mean of MoveReport::ratios, or another member, over the sizes of all moves; 0
// without any.
double after_over_before(const Report& report, Curve MoveReport::*ratios = &MoveReport::ratios);
nlohmann::json to_json(const Report& report);
// Pairs of bytes and microseconds.
nlohmann::json curve_json(const Curve& curve);
nlohmann::json move_json(const MoveReport& moved);
// Throughput of every size before, during and after the move.
std::string move_table(const MoveReport& moved);
// before, during and after of the last move, the ratios, the downtime.
std::string to_table(const Report& report);
// Draws throughput over message size with gnuplot; Code::io with its output if it fails.
Status draw(const Report& report, const std::string& svg);

}  // namespace ghost::bench
