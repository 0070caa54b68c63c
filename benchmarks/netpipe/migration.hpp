// SPDX-License-Identifier: BSD-3-Clause
// NetPIPE runs during which a rank is moved.
#pragma once

#include <string>
#include <vector>

#include "base/json.hpp"
#include "benchmarks/netpipe/netpipe.hpp"

namespace ghost::bench {

// One placement before, another after. Rank 0 is always on gn1, rank 1 is what moves.
struct Move {
    std::string name;
    std::vector<std::string> mpirun;  // options that put rank 1 where it starts
    std::string old_node;
    std::string new_node;
    std::string
        as_if;  // name of the transport whose curve the sizes after the move are held against
    bool leaves_node;  // nothing of the job stays on the old node: count its traffic, then cut it
};

// away (same node → separate nodes), third (separate → another separate one), together.
const std::vector<Move>& all_moves();
// The options that put both ranks on gn1, or one each on gn1 and gn2, with gn3 as a spare.
std::vector<std::string> ghost_same_node();
std::vector<std::string> ghost_separate_nodes();

struct MovedRun {
    int netpipe_exit = -1;
    Curve before, during, after;  // by when the size's line was printed
    nlohmann::json migration;     // what `ghost migrate --json` printed for the rank
    bool traffic_counted = false;
    Traffic old_node;  // over the old node's link between the end of the move and the cut
    double counted_s = 0;
};

// Starts NetPIPE with sizes up to `upper`, moves rank 1 once the first sizes are through, counts
// the old node's traffic for some seconds, cuts its network (healed at the end) and lets NetPIPE
// end.
Result<MovedRun> run_moved(const Cluster& cluster, const Move& move, int64_t upper);
// The same run without a migration.
Result<Curve> run_unmoved(const Cluster& cluster, const Transport& transport, int64_t upper);

struct MoveReport {
    Move move;
    MovedRun run;
    Curve reference;                   // the unmoved run it is held against
    Curve ratios;                      // after/before for each size measured after the move:
                                       // medians of the turns' own
    Curve best_ratios;                 // of the least times
    std::vector<double> downtimes_us;  // of every run; `run` is the last
};

// Unmoved and moved runs in turns, so many of each; what is on is printed.
Result<MoveReport> repeat_move(const Cluster& cluster, const Move& move, int64_t upper, int runs);

// The longest time rank 0 waited for rank 1 while that was moved; the JSON heartbeat.c prints, with
// "migration" beside it.
Result<nlohmann::json> run_heartbeat(const Cluster& cluster, const Move& move,
                                     const std::string& program);

}  // namespace ghost::bench
