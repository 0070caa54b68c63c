// SPDX-License-Identifier: BSD-3-Clause
#include "tools/move_rows.hpp"

#include <fmt/format.h>
#include <string>

#include "base/json_member.hpp"
#include "tools/terminal.hpp"

namespace ghost::tools {

void print_move(const nlohmann::json& row) {
    int rank = member(row, "rank", -1);
    std::string from = member(row, "from", "?"), to = member(row, "to", "?");
    if (!member(row, "moved", false)) {
        const bool there = from != "?" && from == to;
        fmt::print("rank {}: {}\n", rank, there ? "is already on " + to : "not moved");
        return;
    }
    fmt::print("rank {}: {} -> {} ({})  {} in {} rounds  downtime {}  total {}  epoch {}\n", rank,
               from, to, member(row, "mode", "?"), bytes_text(member(row, "bytes", uint64_t{0})),
               member(row, "rounds", 0), time_text(member(row, "downtime_us", int64_t{0})),
               time_text(member(row, "total_us", int64_t{0})), member(row, "epoch", 0));
}

}  // namespace ghost::tools
