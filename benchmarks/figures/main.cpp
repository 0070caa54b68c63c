// SPDX-License-Identifier: BSD-3-Clause
// Figures 8 and 9 of Gallard and Morin, "Dynamic Streams" (RR-4987), on a virtual cluster: message
// times over sockets, KerNet streams, and MPI, stock and on KerNet, on one node and over wires of
// several rates; how two streams share a wire; throughput before, during and after a migration.
//
// What is compared is measured in turns (A B A B …) in one run, because the machine's speed changes
// in phases of seconds; medians are compared, and only ratios mean anything.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <map>
#include <unistd.h>

#include "benchmarks/figures/report.hpp"
#include "benchmarks/figures/streams.hpp"
#include "benchmarks/common/plot.hpp"

namespace ghost::bench {
namespace {

const std::vector<std::string> all_figures{"8a", "8b", "8c", "8d", "9"};

struct Options {
    std::string size = "quick";
    std::string json, svg, ghost;
    std::string lab = fmt::format("figures{}", getpid());
    std::vector<std::string> figures = all_figures;

    bool wants(const std::string& figure) const {
        return std::find(figures.begin(), figures.end(), figure) != figures.end();
    }
};

// How much is measured.
struct Plan {
    int turns;
    int64_t lower;  // smallest and largest message, bytes
    int64_t upper;  // 0: the wire's own for size smoke
    int ease;       // NetPIPE's repeats are divided by it
    int stream_turns, budget_ms;
    double fairness_s;  // 0: not measured
    std::vector<std::string> moves;
    int moved_runs;
    int64_t moved_upper;
};

Plan plan_of(const std::string& size) {
    if (size == "smoke") return {1, 1, 0, 10, 3, 20, 2, {"third"}, 1, 16};             // a minute
    if (size == "large") return {7, large, 4 << 20, 1, 3, 100, 0, {}, 0, 0};           // 10
    if (size == "quick") return {3, 1, 1 << 20, 1, 3, 60, 6, {"third"}, 5, 4096};      // 12
    return {5, 1, 4 << 20, 1, 3, 100, 10, {"away", "together", "third"}, 3, 1 << 20};  // an hour
}

// Stretches end and begin so that all sizes are those of one long run: 2^n and 3·2^n.
std::vector<Stretch> stretches(const Wire& wire, const Plan& plan, int64_t upper) {
    auto repeats = [&](int i) { return std::max(1, wire.repeats[i] / plan.ease); };
    if (plan.lower > 98304) return {{plan.lower, upper, repeats(2)}};
    std::vector<Stretch> all{{1, 6144, repeats(0)},
                             {8192, std::min<int64_t>(upper, 98304), repeats(1)}};
    if (upper > 98304) all.push_back({131072, upper, repeats(2)});
    return all;
}

Transport transport_of(Kind kind, const Wire& wire) {
    const std::string name = fmt::format("{}, {}", name_of(kind), wire.name);
    if (kind == Kind::raw) return {name, {}, wire.rate ? "gn2" : "gn1"};
    if (kind == Kind::kernet_mpi)
        return {name, wire.rate ? ghost_separate_nodes() : ghost_same_node()};
    return {name,
            {"--host", wire.rate ? "gn1:1,gn2:1" : "gn1:2", "--bind-to", "none", "--mca", "pml",
             "ob1", "--mca", "btl", wire.rate ? "self,tcp" : "self,vader"}};
}

Status shape_all(const Cluster& cluster, const Wire& wire) {
    for (const char* node : {"gn1", "gn2", "gn3"})
        GHOST_TRY(cluster.shape(node, wire.rate ? wire.rate : "none"));
    return {};
}

// What has been measured, written whenever there is more: an hour's work may be cut off.
class Kept {
  public:
    explicit Kept(const Options& options) : options_(options) { report_.size = options.size; }

    Status add(const FiguresReport& part) {
        fmt::print("{}\n", to_table(part));
        std::fflush(stdout);
        append(report_.wires, part.wires);
        append(report_.fairness, part.fairness);
        append(report_.moves, part.moves);
        if (!part.moves.empty()) report_.moves_wire = part.moves_wire;
        if (!options_.json.empty()) GHOST_TRY(write_json(to_json(report_), options_.json));
        return {};
    }
    const FiguresReport& report() const { return report_; }

  private:
    template <class Part>
    static void append(std::vector<Part>& to, const std::vector<Part>& more) {
        to.insert(to.end(), more.begin(), more.end());
    }

    const Options& options_;
    FiguresReport report_;
};

// What is measured on the wire: all of it for the wire's own figure, MPI and NPtcp for 8d.
std::vector<Kind> kinds_on(const Wire& wire, const Options& options) {
    std::vector<Kind> kinds;
    for (Kind kind : {Kind::tcp, Kind::tcp_reno, Kind::unix_socket, Kind::kernet, Kind::raw,
                      Kind::stock_mpi, Kind::kernet_mpi}) {
        const bool wanted = options.wants(wire.figure) || (options.wants("8d") && !is_stream(kind));
        if (wanted && is_possible(kind, wire)) kinds.push_back(kind);
    }
    return kinds;
}

Status measure_wire(const Cluster& cluster, StreamNodes& nodes, const Wire& wire, const Plan& plan,
                    const Options& options, FiguresReport& report) {
    const std::vector<Kind> kinds = kinds_on(wire, options);
    if (kinds.empty()) return {};
    GHOST_TRY(shape_all(cluster, wire));
    const int64_t upper = plan.upper ? plan.upper : wire.smoke_upper;
    std::map<Kind, std::vector<Curve>> curves;
    for (int turn = 1; turn <= plan.turns; ++turn) {
        for (Kind kind : kinds) {
            fmt::print("    {}, turn {} of {}: {}\n", wire.name, turn, plan.turns, name_of(kind));
            std::fflush(stdout);
            auto curve = is_stream(kind) ? nodes.measure(kind, wire, {plan.lower, upper},
                                                         plan.stream_turns, plan.budget_ms)
                                         : measure(cluster, transport_of(kind, wire),
                                                   stretches(wire, plan, upper));
            if (!curve.ok()) return curve.error();
            curves[kind].push_back(*curve);
        }
    }
    WireReport measured{wire, {}};
    for (const auto& [kind, turns] : curves) measured.curves[kind] = median(turns);
    report.wires.push_back(measured);
    return {};
}

// The median of each stream's rate over the turns.
std::vector<double> medians(std::vector<std::vector<double>> turns) {
    std::vector<double> result;
    for (size_t stream = 0; stream < turns.front().size(); ++stream) {
        std::vector<double> values;
        for (const auto& turn : turns) values.push_back(turn[stream]);
        std::sort(values.begin(), values.end());
        result.push_back(values[values.size() / 2]);
    }
    return result;
}

// A KerNet stream beside a TCP connection with the system's congestion control, beside one with
// its own, and for comparison these two without KerNet.
Status measure_fairness(const Cluster& cluster, StreamNodes& nodes, const Wire& wire,
                        const Plan& plan, FiguresReport& report) {
    const std::vector<std::vector<Kind>> couples{{Kind::kernet, Kind::tcp},
                                                 {Kind::kernet, Kind::tcp_reno},
                                                 {Kind::tcp_reno, Kind::tcp},
                                                 {Kind::tcp_reno, Kind::tcp_reno}};
    GHOST_TRY(shape_all(cluster, wire));
    std::map<size_t, std::vector<std::vector<double>>> turns;
    for (int turn = 1; turn <= plan.turns; ++turn) {
        for (size_t i = 0; i < couples.size(); ++i) {
            fmt::print("    {}, turn {} of {}: {} and {} at once\n", wire.name, turn, plan.turns,
                       name_of(couples[i][0]), name_of(couples[i][1]));
            std::fflush(stdout);
            auto rates = nodes.together(couples[i], plan.fairness_s);
            if (!rates.ok()) return rates.error();
            turns[i].push_back(*rates);
        }
    }
    for (size_t i = 0; i < couples.size(); ++i)
        report.fairness.push_back({wire.name, couples[i], medians(turns[i])});
    return {};
}

Status figure_8(const Cluster& cluster, const Plan& plan, const Options& options, Kept& kept) {
    auto folder = Folder::make();
    if (!folder.ok()) return folder.error();
    auto nodes = StreamNodes::up(cluster, **folder);
    if (!nodes.ok()) return nodes.error();
    for (const Wire& wire : all_wires()) {
        FiguresReport part;
        GHOST_TRY(measure_wire(cluster, *nodes, wire, plan, options, part));
        if (!part.wires.empty()) GHOST_TRY(kept.add(part));
        part = {};
        if (wire.bits == 0 || plan.fairness_s == 0 || !options.wants(wire.figure)) continue;
        GHOST_TRY(measure_fairness(cluster, *nodes, wire, plan, part));
        GHOST_TRY(kept.add(part));
    }
    return {};
}

// As in the paper, on Gigabit Ethernet.
Status figure_9(const Cluster& cluster, const Plan& plan, Kept& kept) {
    const Wire& gigabit = all_wires()[2];
    GHOST_TRY(shape_all(cluster, gigabit));
    for (const Move& move : all_moves()) {
        if (std::find(plan.moves.begin(), plan.moves.end(), move.name) == plan.moves.end())
            continue;
        auto moved = repeat_move(cluster, move, plan.moved_upper, plan.moved_runs);
        if (!moved.ok()) return moved.error();
        FiguresReport part;
        part.moves_wire = gigabit.name;
        part.moves.push_back(*moved);
        GHOST_TRY(kept.add(part));
    }
    return {};
}

Status measure_all(const Options& options, Kept& kept) {
    const Plan plan = plan_of(options.size);
    auto cluster =
        Cluster::up(options.ghost.empty() ? built("tools/ghost") : options.ghost, options.lab, 3);
    if (!cluster.ok()) return cluster.error();
    Status status = figure_8(*cluster, plan, options, kept);
    if (status.ok() && options.wants("9")) status = figure_9(*cluster, plan, kept);
    return status;
}

// What has been measured is kept even when something failed.
Status bench(const Options& options) {
    Kept kept(options);
    const Status status = measure_all(options, kept);
    if (!options.svg.empty()) GHOST_TRY(draw_figures(kept.report(), options.svg));
    return status;
}

int run_main(int argc, char** argv) {
    Options options;
    CLI::App app("Figures 8 and 9 of \"Dynamic Streams\" (RR-4987) on a virtual cluster");
    app.add_option("--size", options.size,
                   "smoke, quick (default), large (large messages only, more turns) or full")
        ->check(CLI::IsMember({"smoke", "quick", "large", "full"}));
    app.add_option("--figure", options.figures,
                   "8a (one node), 8b (Fast Ethernet), 8c (Gigabit), 8d (MPI on all wires, and the "
                   "unshaped one), 9 (migration); all")
        ->delimiter(',')
        ->check(CLI::IsMember(all_figures));
    app.add_option("--json", options.json, "where the numbers go");
    app.add_option("--svg", options.svg, "folder for the pictures");
    app.add_option("--ghost", options.ghost, "the ghost command (default: the one built beside)");
    app.add_option("--name", options.lab, "name of the virtual cluster");
    CLI11_PARSE(app, argc, argv);
    const Status status = bench(options);
    if (status.ok()) return 0;
    fmt::print(stderr, "figures: {}\n", status.error().message());
    return 1;
}

}  // namespace
}  // namespace ghost::bench

int main(int argc, char** argv) {
    return ghost::bench::run_main(argc, argv);
}
