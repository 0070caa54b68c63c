// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/netpipe/migration.hpp"

#include <fmt/format.h>

#include "base/clock.hpp"

namespace ghost::bench {
namespace {

using nlohmann::json;

constexpr int64_t second_us = 1'000'000;
constexpr int64_t run_limit_us = 600 * second_us;
constexpr int migrate_limit_s = 60;
constexpr size_t sizes_before = 3;  // sizes let through before the rank is moved
constexpr int64_t counted_us = 3 * second_us;

std::vector<std::string> with_ghost(const std::string& hosts, const std::string& map_by) {
    return {"--host", hosts, "--map-by", map_by, "--bind-to", "none", "--mca", "ghost", "1"};
}

// The last JSON value in a program's output; progress may be printed before it.
json last_json(const std::string& output) {
    for (size_t at = output.find_first_of("{["); at != std::string::npos;
         at = output.find_first_of("{[", at + 1)) {
        json value = json::parse(output.substr(at), nullptr, false);
        if (!value.is_discarded()) return value;
    }
    return nullptr;
}

Result<json> migrate(const Cluster& cluster, const Move& move) {
    auto ended = run(cluster.on("gn1", {"ghost", "migrate", "--rank", "1", "--to", move.new_node,
                                        "--mode", "stop", "--json"}),
                     migrate_limit_s);
    if (!ended.ok()) return ended.error();
    json result = last_json(ended->output);
    if (ended->status != 0 || result.is_null()) {
        return because(Code::io, fmt::format("ghost migrate --rank 1 --to {} ended with {}:\n{}",
                                             move.new_node, ended->status, ended->output));
    }
    if (result.is_object() && result.contains("result")) result = result["result"];
    if (result.is_array()) result = result.empty() ? json() : result[0];
    if (!result.is_object() || !result.value("moved", true)) {
        return because(Code::io, "ghost migrate did not move rank 1:\n" + ended->output);
    }
    return result;
}

// Everything NetPIPE printed, and the samples in the part of the run that is on.
class Listener {
  public:
    explicit Listener(Command& command) : command_(command) {}

    void into(Curve& curve) { curve_ = &curve; }
    // Until `count` samples are in the current curve, the deadline, or the end of the output
    // (false).
    Result<bool> listen(size_t count, int64_t deadline_us) {
        if (curve_->size() >= count) return true;
        auto ended = command_.follow(
            [&](const std::string& line) {
                output_ += line + "\n";
                if (auto sample = parse_line(line)) (*curve_)[sample->bytes] = sample->usec;
                return curve_->size() < count;
            },
            deadline_us);
        if (ended.ok()) return !*ended;
        if (ended.error().code == Code::timeout) return true;
        return ended.error();
    }
    const std::string& output() const { return output_; }

  private:
    Command& command_;
    Curve* curve_ = nullptr;
    std::string output_;
};

constexpr size_t no_limit = SIZE_MAX;

Error ended_early(const Listener& listener, const char* when) {
    return because(Code::io, fmt::format("NetPIPE ended {}:\n{}", when, listener.output()));
}

// Between the move and the cut: what goes over the old node's link while NetPIPE goes on.
Status count_old_node(const Cluster& cluster, const Move& move, Listener& listener,
                      MovedRun& moved) {
    GHOST_TRY(cluster.count_traffic(move.old_node));
    const int64_t begin = monotonic_us();
    auto going_on = listener.listen(no_limit, begin + counted_us);
    if (!going_on.ok()) return going_on.error();
    auto traffic = cluster.traffic(move.old_node);
    if (!traffic.ok()) return traffic.error();
    moved.counted_s = static_cast<double>(monotonic_us() - begin) / 1e6;
    moved.old_node = *traffic;
    moved.traffic_counted = true;
    GHOST_TRY(cluster.forget_traffic(move.old_node));
    return cluster.cut(move.old_node);
}

Result<MovedRun> follow_moved(const Cluster& cluster, const Move& move, Command& command) {
    const int64_t deadline = monotonic_us() + run_limit_us;
    MovedRun moved;
    Listener listener(command);
    listener.into(moved.before);
    auto going_on = listener.listen(sizes_before, deadline);
    if (!going_on.ok()) return going_on.error();
    if (moved.before.size() < sizes_before) return ended_early(listener, "before the migration");
    auto migration = migrate(cluster, move);
    if (!migration.ok()) return migration.error();
    moved.migration = *migration;
    // what has been printed meanwhile, and the size that is being measured now
    listener.into(moved.during);
    going_on = listener.listen(no_limit, monotonic_us());
    if (going_on.ok()) going_on = listener.listen(moved.during.size() + 1, deadline);
    if (!going_on.ok()) return going_on.error();
    if (!*going_on) return ended_early(listener, "during the migration");
    listener.into(moved.after);
    if (move.leaves_node) GHOST_TRY(count_old_node(cluster, move, listener, moved));
    going_on = listener.listen(no_limit, deadline);
    if (!going_on.ok()) return going_on.error();
    auto status = command.wait(deadline);
    if (!status.ok()) return status.error();
    moved.netpipe_exit = *status;
    if (*status != 0) return ended_early(listener, "badly after the migration");
    return moved;
}

}  // namespace

std::vector<std::string> ghost_same_node() {
    return with_ghost("gn1:2,gn2:2,gn3:2", "slot");
}
std::vector<std::string> ghost_separate_nodes() {
    return with_ghost("gn1:2,gn2:2,gn3:2", "node");
}

const std::vector<Move>& all_moves() {
    static const std::vector<Move> moves{
        {"away", ghost_same_node(), "gn1", "gn3", "ghost, separate nodes", false},
        {"together", ghost_separate_nodes(), "gn2", "gn1", "ghost, same node", true},
        {"third", ghost_separate_nodes(), "gn2", "gn3", "ghost, separate nodes", true},
    };
    return moves;
}

Result<MovedRun> run_moved(const Cluster& cluster, const Move& move, int64_t upper) {
    const Transport transport{move.name, move.mpirun};
    auto command = Command::start(cluster.on("gn1", mpi_command(transport, {1, upper, 0})));
    if (!command.ok()) return command.error();
    auto moved = follow_moved(cluster, move, *command);
    if (move.leaves_node) GHOST_TRY(cluster.heal(move.old_node));
    return moved;
}

Result<Curve> run_unmoved(const Cluster& cluster, const Transport& transport, int64_t upper) {
    return measure(cluster, transport, {{1, upper, 0}});
}

Result<MoveReport> repeat_move(const Cluster& cluster, const Move& move, int64_t upper, int runs) {
    const bool same = move.as_if == "ghost, same node";
    const Transport unmoved{move.as_if, same ? ghost_same_node() : ghost_separate_nodes()};
    std::vector<Curve> references;
    std::vector<Curve> afters;
    MoveReport moved;
    moved.move = move;
    for (int turn = 1; turn <= runs; ++turn) {
        fmt::print("    {} → {} ({}), unmoved, then moved: {} of {}\n", move.old_node,
                   move.new_node, move.name, turn, runs);
        std::fflush(stdout);
        auto reference = run_unmoved(cluster, unmoved, upper);
        if (!reference.ok()) return reference.error();
        references.push_back(*reference);
        auto run = run_moved(cluster, move, upper);
        if (!run.ok()) return run.error();
        afters.push_back(run->after);
        moved.downtimes_us.push_back(run->migration.value("downtime_us", 0.0));
        moved.run = *run;
    }
    moved.reference = median(references);
    moved.run.after = median(afters);
    moved.ratios = speedup_in_turns(afters, references);
    moved.best_ratios = speedup(least(afters), least(references));
    return moved;
}

Result<json> run_heartbeat(const Cluster& cluster, const Move& move, const std::string& program) {
    std::vector<std::string> words{"mpirun", "-np", "2"};
    words.insert(words.end(), move.mpirun.begin(), move.mpirun.end());
    words.insert(words.end(), {program, "1", "3"});
    auto command = Command::start(cluster.on("gn1", words));
    if (!command.ok()) return command.error();
    const int64_t deadline = monotonic_us() + 60 * second_us;
    std::string output;
    auto line = [&](const std::string& text) {
        output += text + "\n";
        return text.find("calm") != 0;
    };
    auto ended = command->follow(line, deadline);
    if (!ended.ok()) return ended.error();
    if (*ended) return because(Code::io, "heartbeat ended early:\n" + output);
    auto migration = migrate(cluster, move);
    if (!migration.ok()) return migration.error();
    ended = command->follow(line, deadline);
    if (!ended.ok()) return ended.error();
    auto status = command->wait(deadline);
    if (!status.ok()) return status.error();
    json result = last_json(output);
    if (*status != 0 || !result.is_object()) {
        return because(Code::io, fmt::format("heartbeat ended with {}:\n{}", *status, output));
    }
    result["migration"] = *migration;
    return result;
}

}  // namespace ghost::bench
