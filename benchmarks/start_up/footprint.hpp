// SPDX-License-Identifier: BSD-3-Clause
// What the processes of a job hold: memory and descriptors, by /proc. Linux; as root.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ghost::bench {

struct Holds {
    double pss_kb = 0;      // shared pages by the number of their users
    double private_kb = 0;  // clean and dirty
    double fds = 0;
    double heap_kb = 0;  // of malloc, in use; said by the program itself
};

// A line "init RANK SECONDS" that neighbours prints.
std::optional<double> parse_init(const std::string& line);
// A line "ready RANK BYTES": KiB.
std::optional<double> parse_ready(const std::string& line);
// The text of /proc/PID/smaps_rollup; nothing if it is another.
std::optional<Holds> parse_rollup(const std::string& text);
// By the name of the process (comm), what each of those holds that were started with MARK=`mark` in
// their environment. Processes that end meanwhile are left out.
std::map<std::string, std::vector<Holds>> marked_processes(const std::string& mark);
extern const char* const mark_variable;

// The value in the middle; 0 for none.
double middle(std::vector<double> values);
// Each member's median; zeros for none.
Holds median(const std::vector<Holds>& all);
// Of a number that was measured in jobs of several sizes (ranks → value): how much it grows with
// each rank more, least squares. 0 for less than two sizes.
double growth_per_rank(const std::map<int, double>& by_ranks);

}  // namespace ghost::bench
