// SPDX-License-Identifier: BSD-3-Clause
// NetPIPE on a virtual cluster: Ghost against stock Open MPI, and before, during and after a move.
//
// Everything compared is measured in one run, in turns (A B A B …), because the machine's speed
// changes in phases of seconds; medians are compared, and only ratios mean anything.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fmt/format.h>

#include "benchmarks/common/plot.hpp"
#include "benchmarks/netpipe/report.hpp"

namespace ghost::bench {
namespace {

struct Options {
    std::string size = "quick";
    std::string json = "results/netpipe.json";
    std::string svg = "results/netpipe.svg";
    std::string ghost;
    std::string lab = "netpipe";
    std::vector<std::string> moves;
    bool stock_only = false;
};

// How much is measured; times are for a quiet machine with two cores.
struct Plan {
    int turns;
    int64_t upper;   // largest message
    bool all_stock;  // also NPtcp, and vader without single copies
    std::vector<std::string> moves;
    int moved_runs;
};

Plan plan_of(const Options& options) {
    Plan plan{};
    if (options.size == "smoke") plan = {1, 65536, false, {"third"}, 1};    // 1 minute
    if (options.size == "quick") plan = {5, 1 << 20, false, {"third"}, 5};  // 4 minutes
    if (options.size == "curves") plan = {5, 4 << 20, true, {}, 0};         // 2 minutes
    if (options.size == "full") {                                           // half an hour
        plan = {5, 4 << 20, true, {"away", "together", "third"}, 5};
    }
    if (!options.moves.empty()) plan.moves = options.moves;
    if (options.stock_only) plan.moves.clear();
    return plan;
}

// Stretches end and begin so that all sizes are those of one long run: 2^n and 3·2^n.
std::vector<Stretch> stretches(int64_t upper, int small, int middle, int large) {
    std::vector<Stretch> all{{1, 6144, small}, {8192, std::min<int64_t>(upper, 98304), middle}};
    if (upper > 98304) all.push_back({131072, upper, large});
    return all;
}

struct Compared {
    Transport transport;
    std::vector<Stretch> stretches;
};

std::vector<Compared> compared(const Plan& plan, bool stock_only) {
    const auto same = stretches(plan.upper, 20000, 2000, 150);
    const auto separate = stretches(plan.upper, 1000, 300, 60);
    auto stock = [](const char* hosts, const char* btl) {
        return std::vector<std::string>{"--host", hosts, "--bind-to", "none", "--mca",
                                        "pml",    "ob1", "--mca",     "btl",  btl};
    };
    std::vector<Compared> all{{{"vader", stock("gn1:2", "self,vader")}, same}};
    if (plan.all_stock) {
        auto copied_twice = stock("gn1:2", "self,vader");
        for (const char* word : {"--mca", "btl_vader_single_copy_mechanism", "none"})
            copied_twice.emplace_back(word);
        all.push_back({{"vader, no single copy", copied_twice}, same});
    }
    if (!stock_only) all.push_back({{"ghost, same node", ghost_same_node()}, same});
    all.push_back({{"btl/tcp", stock("gn1:1,gn2:1", "self,tcp")}, separate});
    if (!stock_only) all.push_back({{"ghost, separate nodes", ghost_separate_nodes()}, separate});
    if (plan.all_stock) all.push_back({{"raw TCP", {}}, separate});
    return all;
}

Status compare(const Cluster& cluster, const Plan& plan, const Options& options, Report& report) {
    std::map<std::string, std::vector<Curve>> curves;
    const auto all = compared(plan, options.stock_only);
    for (int turn = 1; turn <= plan.turns; ++turn) {
        for (const Compared& each : all) {
            fmt::print("    turn {} of {}: {}\n", turn, plan.turns, each.transport.name);
            std::fflush(stdout);
            auto curve = measure(cluster, each.transport, each.stretches);
            if (!curve.ok()) return curve.error();
            curves[each.transport.name].push_back(*curve);
        }
    }
    for (const auto& [name, turns] : curves) report.curves[name] = median(turns);
    return {};
}

// The run whose longest wait is the median of all.
Result<nlohmann::json> typical_heartbeat(const Cluster& cluster, const Move& move, int runs,
                                         const std::string& program) {
    std::vector<nlohmann::json> all;
    auto longest = [](const nlohmann::json& beats) { return beats.value("longest_us", 0.0); };
    for (int turn = 1; turn <= runs; ++turn) {
        fmt::print("    {} → {}: how long the partner waits: {} of {}\n", move.old_node,
                   move.new_node, turn, runs);
        std::fflush(stdout);
        auto beats = run_heartbeat(cluster, move, program);
        if (!beats.ok()) return beats.error();
        all.push_back(*beats);
    }
    std::sort(all.begin(), all.end(), [&](auto& a, auto& b) { return longest(a) < longest(b); });
    nlohmann::json typical = all[all.size() / 2];
    for (const auto& beats : all) typical["all_longest_us"].push_back(longest(beats));
    return typical;
}

Status moves(const Cluster& cluster, const Plan& plan, const std::string& heartbeat,
             Report& report) {
    for (const Move& move : all_moves()) {
        if (std::find(plan.moves.begin(), plan.moves.end(), move.name) == plan.moves.end()) {
            continue;
        }
        if (!report.heartbeat) {
            auto beats = typical_heartbeat(cluster, move, plan.moved_runs, heartbeat);
            if (!beats.ok()) return beats.error();
            report.heartbeat = *beats;
        }
        auto moved = repeat_move(cluster, move, plan.upper, plan.moved_runs);
        if (!moved.ok()) return moved.error();
        report.moves.push_back(*moved);
    }
    return {};
}

Status bench(const Options& options) {
    const Plan plan = plan_of(options);
    const std::string ghost = options.ghost.empty() ? built("tools/ghost") : options.ghost;
    Report report;
    report.size = options.size;
    auto cluster = Cluster::up(ghost, options.lab, 3);
    if (!cluster.ok()) return cluster.error();
    GHOST_TRY(compare(*cluster, plan, options, report));
    Status status = moves(*cluster, plan, built("benchmarks/netpipe/heartbeat"), report);
    // what has been measured is kept even when a move failed
    GHOST_TRY(write_json(to_json(report), options.json));
    GHOST_TRY(draw(report, options.svg));
    fmt::print("{}\n{}\n{}\n", to_table(report), options.json, options.svg);
    if (status.ok() && !plan.moves.empty() && after_over_before(report) <= 0) {
        return because(Code::io, "no size was measured after the migration");
    }
    return status;
}

int run_main(int argc, char** argv) {
    Options options;
    CLI::App app("NetPIPE on a virtual cluster: Ghost against stock, and across a migration");
    app.add_option("--size", options.size, "smoke, quick (default), curves (no migrations) or full")
        ->check(CLI::IsMember({"smoke", "quick", "curves", "full"}));
    app.add_option("--json", options.json, "where the numbers go");
    app.add_option("--svg", options.svg, "where the picture goes");
    app.add_option("--ghost", options.ghost, "the ghost command (default: the one built beside)");
    app.add_option("--name", options.lab, "name of the virtual cluster");
    app.add_option("--moves", options.moves, "which moves: away, together, third")
        ->delimiter(',')
        ->check(CLI::IsMember({"away", "together", "third"}));
    app.add_flag("--stock-only", options.stock_only, "measure only what Debian ships");
    CLI11_PARSE(app, argc, argv);
    const Status status = bench(options);
    if (status.ok()) return 0;
    fmt::print(stderr, "netpipe: {}\n", status.error().message());
    return 1;
}

}  // namespace
}  // namespace ghost::bench

int main(int argc, char** argv) {
    return ghost::bench::run_main(argc, argv);
}
