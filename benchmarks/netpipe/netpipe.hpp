// SPDX-License-Identifier: BSD-3-Clause
// NetPIPE runs: how they are started and what they print.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "benchmarks/common/cluster.hpp"

namespace ghost::bench {

// Message size in bytes → time for one way in microseconds.
using Curve = std::map<int64_t, double>;

struct Sample {
    int64_t bytes = 0;
    double usec = 0;
};

// A line like "  7:      16 bytes   5021 times -->     92.31 Mbps in       1.32 usec". The time is
// computed from the rate, which carries more digits. Nothing if the line is another.
std::optional<Sample> parse_line(const std::string& line);

// One stretch of sizes with a fixed number of repetitions, so that a run takes seconds; 0: NetPIPE
// chooses them itself (about 1.5 s for each size).
struct Stretch {
    int64_t from = 1;
    int64_t to = 0;
    int repeats = 0;
};

// In turns: a message goes and comes back. Stream: messages go one way, one behind the other.
enum class Pattern { turns, stream };

// What is compared. `mpirun` holds the options after `mpirun -np 2`; empty: NPtcp from gn1 to
// `receiver`.
struct Transport {
    std::string name;
    std::vector<std::string> mpirun;
    std::string receiver = "gn2";
    Pattern pattern = Pattern::turns;
};

std::vector<std::string> netpipe_options(const Stretch& stretch, Pattern pattern = Pattern::turns);
std::vector<std::string> mpi_command(const Transport& transport, const Stretch& stretch);

// Runs all stretches once. An error carries NetPIPE's output.
Result<Curve> measure(const Cluster& cluster, const Transport& transport,
                      const std::vector<Stretch>& stretches);

// For each size in all curves, the median.
Curve median(const std::vector<Curve>& curves);
// For each size in all curves, the least: what is left when the machine itself slows whole runs (on
// a virtual machine, when its processors are put on cores that share no cache).
Curve least(const std::vector<Curve>& curves);
// slower/faster for each common size: above 1 where `curve` is faster than `reference`.
Curve speedup(const Curve& curve, const Curve& reference);
// The same of runs taken in turns: of each turn by itself, then the median. What slows the machine
// for a while slows both runs of a turn, but not as many runs of one kind as of the other.
Curve speedup_in_turns(const std::vector<Curve>& curves, const std::vector<Curve>& references);
// 0 for an empty curve.
double geometric_mean(const Curve& ratios);
// Bytes in one microsecond are megabytes in a second; Mbit/s of 10^6 bits.
double mbps(int64_t bytes, double usec);
// "0.83 at 4096 bytes": the least of the ratios.
std::string slowest(const Curve& ratios);

}  // namespace ghost::bench
