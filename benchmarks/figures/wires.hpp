// SPDX-License-Identifier: BSD-3-Clause
// What carries the messages in the figures, and what is compared on it; pure tables and arithmetic.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "benchmarks/netpipe/netpipe.hpp"

namespace ghost::bench {

// One placement of the two processes: one node, or two nodes and the rate of the wire between them.
struct Wire {
    const char* name;
    const char* figure;   // of RR-4987 that it belongs to
    const char* rate;     // for `ghost lab shape`; null: both processes on one node
    double bits;          // of the rate, each second; 0: not limited
    int repeats[3];       // NetPIPE's, for stretches up to 6 KB, 96 KB, and above
    int64_t smoke_upper;  // largest message of a run of size smoke, bytes
};
const std::vector<Wire>& all_wires();

// A message is large from here on, bytes.
inline constexpr int64_t large = 256 * 1024;

// What can be measured on a wire.
enum class Kind { tcp, tcp_reno, unix_socket, kernet, raw, stock_mpi, kernet_mpi };
// As curves and columns are called.
const char* name_of(Kind kind);
// A stream between two programs without MPI, measured by kernet_speed.
bool is_stream(Kind kind);
// What kernet_speed calls a stream.
const char* option_of(Kind kind);
bool is_possible(Kind kind, const Wire& wire);

// What is held against what.
struct Pair {
    Kind mine, theirs;
    int64_t from;  // smallest message that counts, bytes
    double mark;   // what is to be reached; 0: no mark
};
const std::vector<Pair>& all_pairs();

using Curves = std::map<Kind, Curve>;

struct PairRatio {
    Pair pair;
    Curve ratios;  // of speeds, for each size
};
// Of the pairs of which both were measured.
std::vector<PairRatio> pair_ratios(const Curves& curves);

// Share of the wire's rate that is message bytes at a message of that size and time.
double share_of_rate(const Wire& wire, int64_t bytes, double usec);
// The most a TCP connection can have of the rate, for packets of 1500 bytes: 1448 bytes of payload
// (time stamps are on) in 1514 that the shaper counts.
double payload_limit();

// A line that ping of kernet_speed prints; nothing if it is another.
std::optional<Sample> parse_ping(const std::string& line);

// What has come until a moment of the monotonic clock.
struct Come {
    int64_t at_us;
    double bytes;
};
// A line that drain of kernet_speed prints.
std::optional<Come> parse_drain(const std::string& line);
// Megabits a second of each of several streams while all of them were on, but for the first fifth
// of that time, in which they find their speed. Empty if they were not on together.
std::vector<double> rates_together(const std::vector<std::vector<Come>>& streams);

}  // namespace ghost::bench
