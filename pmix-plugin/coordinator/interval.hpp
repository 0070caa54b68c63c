// SPDX-License-Identifier: BSD-3-Clause
// How far apart snapshots are if the user leaves it to Ghost (ghost_checkpoint_interval auto).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace ghost::plugin {

// The time of work between two snapshots that loses least: J. T. Daly, "A higher order estimate of
// the optimum checkpoint interval for restart dumps", FGCS 22 (2006), equation 37, which refines
// J. W. Young (1974), sqrt(2 cost mtbf). All in µs; `cost` is what a snapshot takes from the job,
// `mtbf` the mean time between failures of the whole job. 0 if either is not above 0.
int64_t daly_work_us(int64_t cost, int64_t mtbf);

// What one snapshot takes from the job: the pause, and a tenth of the time in which it is written
// while the ranks run. That they are slowed by a tenth is assumed, not measured.
int64_t snapshot_cost_us(int64_t pause, int64_t lasted);

// From the last snapshots and the mean time between failures: µs from begin to begin.
class IntervalChoice {
  public:
    static constexpr int64_t first_us = 30'000'000;  // until there is something measured
    static constexpr int64_t least_us = 10'000'000;
    static constexpr int64_t least_of_lasted = 10;  // times what a snapshot takes to be whole
    static constexpr size_t counted = 5;            // the last so many; their median counts

    explicit IntervalChoice(int64_t mtbf_us) : mtbf_(mtbf_us) {}

    // One is complete: its pause, and the time from its begin until it was whole.
    void measured(int64_t pause, int64_t lasted);

    // From now on this is the mean time between failures.
    void set_mtbf(int64_t us) { mtbf_ = us; }

    int64_t interval_us() const;
    // The median cost; nothing before the first snapshot.
    std::optional<int64_t> cost_us() const;
    int64_t mtbf_us() const { return mtbf_; }

  private:
    int64_t mtbf_;
    std::deque<int64_t> costs_;
    std::deque<int64_t> lasted_;
};

}  // namespace ghost::plugin
