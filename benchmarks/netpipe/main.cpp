// SPDX-License-Identifier: BSD-3-Clause
// NetPIPE on a virtual cluster: Ghost against stock Open MPI, and before, during and after a move.
//
// Everything compared is measured in one run, in turns (A B A B …), because the machine's speed
// changes in phases of seconds; medians are compared, and only ratios mean anything.
#include <CLI/CLI.hpp>
#include <algorithm>
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
    std::vector<std::string> against;
    std::vector<std::string> patterns{"turns"};
    bool stock_only = false;
};

// How much is measured; times are for a quiet machine with two cores.
struct Plan {
    int turns;
    int64_t upper;                     // largest message
    std::vector<std::string> against;  // what --against is if it is not given
    std::vector<std::string> moves;
    int moved_runs;
};

Plan plan_of(const Options& options) {
    const std::vector<std::string> few{"vader", "tcp"}, all{"vader", "vader-none", "tcp", "raw"};
    Plan plan{};
    if (options.size == "smoke") plan = {1, 65536, few, {"third"}, 1};    // 1 minute
    if (options.size == "quick") plan = {5, 1 << 20, few, {"third"}, 5};  // 4 minutes
    if (options.size == "curves") plan = {5, 4 << 20, all, {}, 0};        // 2 minutes
    if (options.size == "full") {                                         // half an hour
        plan = {5, 4 << 20, all, {"away", "together", "third"}, 5};
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

// What stock Open MPI is told to be measured beside Ghost, in both placements or one.
struct Rival {
    const char* name;  // of --against
    Transport transport;
    bool same_node;
};

std::vector<Rival> rivals() {
    const std::vector<std::string> one_node{"--host", "gn1:2", "--bind-to", "none"};
    const std::vector<std::string> two_nodes{"--host", "gn1:1,gn2:1", "--bind-to", "none"};
    auto ob1 = [](std::vector<std::string> words, const char* btl) {
        for (const char* word : {"--mca", "pml", "ob1", "--mca", "btl", btl})
            words.emplace_back(word);
        return words;
    };
    // Where the system has no network that UCX knows, Open MPI takes it only if told to.
    auto ucx = [](std::vector<std::string> words, const char* transports) {
        for (const char* word : {"--mca", "pml", "ucx", "--mca", "opal_common_ucx_tls", "any",
                                 "--mca", "opal_common_ucx_devices", "any", "-x", transports})
            words.emplace_back(word);
        return words;
    };
    auto copied_twice = ob1(one_node, "self,vader");
    for (const char* word : {"--mca", "btl_vader_single_copy_mechanism", "none"})
        copied_twice.emplace_back(word);
    return {{"vader", {"vader", ob1(one_node, "self,vader")}, true},
            {"vader-none", {"vader, no single copy", copied_twice}, true},
            {"ucx", {"UCX, same node", ucx(one_node, "UCX_TLS=posix,cma,self")}, true},
            {"tcp", {"btl/tcp", ob1(two_nodes, "self,tcp")}, false},
            {"ucx", {"UCX, separate nodes", ucx(two_nodes, "UCX_TLS=tcp,self")}, false},
            {"raw", {"raw TCP", {}}, false}};
}

// In the order they are measured in, the same in each turn.
std::vector<Compared> compared(const Plan& plan, const Options& options, Pattern pattern) {
    const auto same = stretches(plan.upper, 20000, 2000, 150);
    const auto separate = stretches(plan.upper, 1000, 300, 60);
    const auto wanted = [&](const char* name) {
        return std::ranges::find(options.against, name) != options.against.end();
    };
    std::vector<Compared> all;
    for (const bool same_node : {true, false}) {
        for (const Rival& rival : rivals()) {
            if (rival.same_node == same_node && wanted(rival.name))
                all.push_back({rival.transport, same_node ? same : separate});
        }
        if (options.stock_only) continue;
        if (same_node) all.push_back({{"ghost, same node", ghost_same_node()}, same});
        if (!same_node)
            all.push_back({{"ghost, separate nodes", ghost_separate_nodes()}, separate});
    }
    for (Compared& each : all) {
        each.transport.pattern = pattern;
        if (pattern == Pattern::stream) each.transport.name += stream_suffix;
    }
    return all;
}

Status compare(const Cluster& cluster, const Plan& plan, const Options& options, Report& report) {
    std::map<std::string, std::vector<Curve>> curves;
    std::vector<Compared> all;
    for (const std::string& pattern : options.patterns) {
        const bool stream = pattern == "stream";
        for (Compared& each : compared(plan, options, stream ? Pattern::stream : Pattern::turns))
            all.push_back(std::move(each));
    }
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

Status bench(Options options) {
    const Plan plan = plan_of(options);
    if (options.against.empty()) options.against = plan.against;
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
    app.add_option("--against", options.against,
                   "what Ghost is measured beside: vader, vader-none (without single copies), tcp, "
                   "ucx (on one node and on two), raw (NPtcp)")
        ->delimiter(',')
        ->check(CLI::IsMember({"vader", "vader-none", "tcp", "ucx", "raw"}));
    app.add_option("--patterns", options.patterns,
                   "turns (default: each message is answered), stream (all go one way)")
        ->delimiter(',')
        ->check(CLI::IsMember({"turns", "stream"}));
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
