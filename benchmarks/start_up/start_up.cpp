// SPDX-License-Identifier: BSD-3-Clause
// What a job costs to start, and what its ranks hold, with Ghost and without, for jobs of several
// sizes on a virtual cluster whose ranks talk to one neighbour only: what is held for ranks that
// were never talked to shows as growth with the size of the job. PMIx keeps what it knows of the
// job in memory shared with the daemon unless it is told not to, as Ghost tells it: a third way,
// without Ghost but so told, separates the one from the other.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

#include "base/clock.hpp"
#include "benchmarks/common/cluster.hpp"
#include "benchmarks/common/plot.hpp"
#include "benchmarks/start_up/footprint.hpp"

namespace ghost::bench {
namespace {

using nlohmann::json;

constexpr int64_t job_limit_us = 300'000'000;
constexpr const char* program = "neighbours";

struct Options {
    std::vector<int> ranks{2, 8, 32, 64};
    int nodes = 4;
    int turns = 3;
    std::string json_file, ghost;
    std::string lab = fmt::format("startup{}", getpid());
};

enum class Way { stock, stock_hash, ghost };
constexpr std::array ways{Way::stock, Way::stock_hash, Way::ghost};

const char* name_of(Way way) {
    return way == Way::stock ? "stock" : way == Way::ghost ? "ghost" : "stock, gds hash";
}

// One job, measured.
struct Started {
    double init_s = 0;     // mpirun's start until MPI_Init has returned everywhere
    double trivial_s = 0;  // mpirun's start to its end, of a job that only starts
    Holds rank;            // the median rank
    double helpers_pss_kb = 0, helpers_private_kb = 0;  // wrapper and init, for each rank
};

double time_of_day() {
    using namespace std::chrono;
    return duration<double>(system_clock::now().time_since_epoch()).count();
}

std::vector<std::string> job(const Cluster& cluster, const Options& options, int ranks, Way way,
                             const std::string& mark, const std::string& until) {
    std::string hosts;
    const int slots = (ranks + options.nodes - 1) / options.nodes;
    for (int node = 1; node <= options.nodes; ++node)
        hosts += fmt::format("{}gn{}:{}", node > 1 ? "," : "", node, slots);
    std::vector<std::string> words{"env", fmt::format("{}={}", mark_variable, mark)};
    if (way == Way::stock_hash) words.emplace_back("PMIX_MCA_gds=hash");
    words.insert(words.end(), {"mpirun", "-np", std::to_string(ranks), "-x", mark_variable,
                               "--oversubscribe", "--bind-to", "none", "--host", hosts});
    if (way == Way::stock_hash) words.insert(words.end(), {"-x", "PMIX_MCA_gds"});
    if (way == Way::ghost) words.insert(words.end(), {"--mca", "ghost", "1"});
    words.push_back(built("benchmarks/start_up/neighbours"));
    if (!until.empty()) words.push_back(until);
    return cluster.on("gn1", words);
}

struct Ready {
    double latest = 0;  // time at which MPI_Init had returned everywhere
    std::vector<double> heaps;
};

// Until all have said both.
Result<Ready> follow_start(Command& command, int ranks) {
    Ready ready;
    int begun = 0;
    std::string output;
    auto ended = command.follow(
        [&](const std::string& line) {
            output += line + "\n";
            if (auto at = parse_init(line)) {
                ready.latest = std::max(ready.latest, *at);
                begun++;
            }
            if (auto kb = parse_ready(line)) ready.heaps.push_back(*kb);
            return begun < ranks || ready.heaps.size() < static_cast<size_t>(ranks);
        },
        monotonic_us() + job_limit_us);
    if (!ended.ok()) return ended.error();
    if (*ended) return make_error(Code::io, "start a job", {}, output);
    return ready;
}

Status end_well(Command& command) {
    std::string output;
    const int64_t deadline = monotonic_us() + job_limit_us;
    auto all = command.follow(
        [&](const std::string& line) {
            output += line + "\n";
            return true;
        },
        deadline);
    if (!all.ok()) return all.error();
    auto status = command.wait(deadline);
    if (!status.ok()) return status.error();
    if (*status == 0) return {};
    return because(Code::io, fmt::format("the job ended with {}:\n{}", *status, output));
}

void note_memory(const std::string& mark, int ranks, Started& started) {
    for (const auto& [name, all] : marked_processes(mark)) {
        if (name == program) started.rank = median(all);
        if (!name.starts_with("ghost-")) continue;
        for (const Holds& each : all) {
            started.helpers_pss_kb += each.pss_kb / ranks;
            started.helpers_private_kb += each.private_kb / ranks;
        }
    }
}

Result<Started> start_once(const Cluster& cluster, const Options& options, int ranks, Way way) {
    // not /tmp: every node has its own
    const std::string until = fmt::format("/var/tmp/{}.until", options.lab);
    const std::string mark = fmt::format("{}.{}", options.lab, monotonic_us());
    std::filesystem::remove(until);
    Started started;
    double begin = time_of_day();
    {
        auto command = Command::start(job(cluster, options, ranks, way, mark, until));
        if (!command.ok()) return command.error();
        auto ready = follow_start(*command, ranks);
        if (!ready.ok()) return ready.error();
        started.init_s = ready->latest - begin;
        note_memory(mark, ranks, started);
        started.rank.heap_kb = middle(ready->heaps);
        std::ofstream(until).put('\n');
        GHOST_TRY(end_well(*command));
        std::filesystem::remove(until);
    }
    begin = time_of_day();
    auto command = Command::start(job(cluster, options, ranks, way, mark, ""));
    if (!command.ok()) return command.error();
    GHOST_TRY(end_well(*command));
    started.trivial_s = time_of_day() - begin;
    return started;
}

Started median_of(const std::vector<Started>& all) {
    const auto of = [&all](double Started::*member) {
        std::vector<double> values;
        for (const Started& each : all) values.push_back(each.*member);
        return middle(values);
    };
    std::vector<Holds> ranks;
    for (const Started& each : all) ranks.push_back(each.rank);
    return {of(&Started::init_s), of(&Started::trivial_s), median(ranks),
            of(&Started::helpers_pss_kb), of(&Started::helpers_private_kb)};
}

using Table = std::map<Way, std::map<int, Started>>;  // → ranks

Result<Table> measure(const Options& options) {
    auto cluster = Cluster::up(options.ghost.empty() ? built("tools/ghost") : options.ghost,
                               options.lab, options.nodes);
    if (!cluster.ok()) return cluster.error();
    std::map<std::pair<Way, int>, std::vector<Started>> all;
    for (int turn = 1; turn <= options.turns; ++turn) {
        for (int ranks : options.ranks) {
            for (Way way : ways) {
                fmt::print("    turn {} of {}: {} ranks, {}\n", turn, options.turns, ranks,
                           name_of(way));
                std::fflush(stdout);
                auto started = start_once(*cluster, options, ranks, way);
                if (!started.ok()) return started.error();
                all[{way, ranks}].push_back(*started);
            }
        }
    }
    Table table;
    for (const auto& [what, turns] : all) table[what.first][what.second] = median_of(turns);
    return table;
}

double growth(const std::map<int, Started>& by_ranks, double Holds::*member) {
    std::map<int, double> values;
    for (const auto& [ranks, started] : by_ranks) values[ranks] = started.rank.*member;
    return growth_per_rank(values);
}

void print(const Table& table) {
    fmt::print(
        "\nmedians; init: mpirun until MPI_Init has returned everywhere; job: mpirun until the "
        "end\n"
        "of a job that does no more; memory and descriptors of one rank, heap: what malloc has "
        "given\n"
        "it; beside: the wrapper's and the inits' for each rank\n\n"
        "{:>6} {:>15} {:>8} {:>8} {:>9} {:>12} {:>9} {:>5} {:>11} {:>15}\n",
        "ranks", "", "init s", "job s", "PSS KiB", "private KiB", "heap KiB", "fds", "beside PSS",
        "beside private");
    for (const auto& [way, by_ranks] : table)
        for (const auto& [ranks, s] : by_ranks)
            fmt::print(
                "{:>6} {:>15} {:>8.2f} {:>8.2f} {:>9.0f} {:>12.0f} {:>9.0f} {:>5.0f} {:>11.0f} "
                "{:>15.0f}\n",
                ranks, name_of(way), s.init_s, s.trivial_s, s.rank.pss_kb, s.rank.private_kb,
                s.rank.heap_kb, s.rank.fds, s.helpers_pss_kb, s.helpers_private_kb);
    for (const auto& [way, by_ranks] : table)
        fmt::print(
            "{}: with each rank more in the job, a rank holds {:.2f} KiB private memory, {:.2f} "
            "of the heap and {:.3f} descriptors more\n",
            name_of(way), growth(by_ranks, &Holds::private_kb), growth(by_ranks, &Holds::heap_kb),
            growth(by_ranks, &Holds::fds));
}

json to_json(const Table& table) {
    json result{{"jobs", json::array()}};
    for (const auto& [way, by_ranks] : table) {
        const char* name = name_of(way);
        result["growth"][name] = {{"private_kb", growth(by_ranks, &Holds::private_kb)},
                                  {"heap_kb", growth(by_ranks, &Holds::heap_kb)},
                                  {"fds", growth(by_ranks, &Holds::fds)}};
        for (const auto& [ranks, s] : by_ranks)
            result["jobs"].push_back({{"ranks", ranks},
                                      {"way", name},
                                      {"init_s", s.init_s},
                                      {"trivial_s", s.trivial_s},
                                      {"rank_pss_kb", s.rank.pss_kb},
                                      {"rank_private_kb", s.rank.private_kb},
                                      {"rank_heap_kb", s.rank.heap_kb},
                                      {"rank_fds", s.rank.fds},
                                      {"beside_pss_kb", s.helpers_pss_kb},
                                      {"beside_private_kb", s.helpers_private_kb}});
    }
    return result;
}

int run_main(int argc, char** argv) {
    Options options;
    CLI::App app("Start-up time, memory and descriptors of jobs, with Ghost and without");
    app.add_option("--ranks", options.ranks, "sizes of jobs (2,8,32,64)")
        ->delimiter(',')
        ->check(CLI::PositiveNumber);
    app.add_option("--nodes", options.nodes, "nodes of the virtual cluster (4)")
        ->check(CLI::PositiveNumber);
    app.add_option("--turns", options.turns, "medians of so many (3)")->check(CLI::PositiveNumber);
    app.add_option("--json", options.json_file, "where the numbers go");
    app.add_option("--ghost", options.ghost, "the ghost command (default: the one built beside)");
    app.add_option("--name", options.lab, "name of the virtual cluster");
    CLI11_PARSE(app, argc, argv);
    auto table = measure(options);
    Status status = table.ok() ? Status() : Status(table.error());
    if (table.ok()) print(*table);
    if (table.ok() && !options.json_file.empty())
        status = write_json(to_json(*table), options.json_file);
    if (status.ok()) return 0;
    fmt::print(stderr, "start_up: {}\n", status.error().message());
    return 1;
}

}  // namespace
}  // namespace ghost::bench

int main(int argc, char** argv) {
    return ghost::bench::run_main(argc, argv);
}
