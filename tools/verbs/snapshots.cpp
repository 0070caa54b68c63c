// SPDX-License-Identifier: BSD-3-Clause
// `ghost snapshots`: the snapshots of jobs in a folder, and what is wrong with them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/json_member.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "tools/verbs/job_snapshots.hpp"
#include "tools/terminal.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

std::string state_of(const Json& row) {
    if (!member(row, "whole", false)) return "damaged: " + member(row, "why", "");
    if (!row.contains("away")) return "complete";
    return fmt::format("complete, part of it on {}",
                       fmt::join(row["away"].get<std::vector<std::string>>(), ", "));
}

void print_row(const Json& row) {
    if (!row.contains("time")) {
        fmt::print("{:<20} damaged: {}\n", member(row, "name", "?"), member(row, "why", "?"));
        return;
    }
    fmt::print("{:<20} {:.19}Z  {:<11} {:>5} ranks  {:>10}  paused {:>8}  {}\n",
               member(row, "name", "?"), member(row, "time", "?"), member(row, "kind", "?"),
               member(row, "ranks", 0), bytes_text(member(row, "bytes", uint64_t{0})),
               time_text(member(row, "pause_us", int64_t{0})), state_of(row));
}

int run_snapshots(const std::string& folder, bool json) {
    Json rows = Json::array();
    if (is_snapshot(folder)) {
        rows.push_back(snapshot_row(plugin::look_at_snapshot(folder)));
    } else {
        auto all = plugin::list_snapshots(folder);
        if (!all) return report(all.error(), json);
        for (const auto& one : *all) rows.push_back(snapshot_row(one));
    }
    if (json) {
        print_json({{"snapshots", rows}});
        return exit_done;
    }
    if (rows.empty()) fmt::print("no complete snapshot of a job in {}\n", folder);
    for (const Json& row : rows) print_row(row);
    return exit_done;
}

}  // namespace

void define_snapshots(CommandLine app, int& exit_status) {
    auto folder = std::make_shared<std::string>("./ghost-snapshots");
    app.add_option("folder", *folder,
                   "folder of snapshots, or one snapshot (default: ./ghost-snapshots)");
    auto json = add_json(app);
    app.footer(
        "Newest first. \"complete\" means that the manifest is valid and every file has its size; "
        "`ghost verify` reads every byte.");
    app.callback([=, &exit_status] { exit_status = run_snapshots(*folder, *json); });
}

}  // namespace ghost::tools
