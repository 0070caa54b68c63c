// SPDX-License-Identifier: BSD-3-Clause
// When to stop copying the memory of a running process round after round, and stop the process.
#pragma once

#include <cstdint>

namespace ghost::core {

// Told of every round; time in µs, as the caller measured it. Pure: neither clock nor thread.
class StoppingRule {
  public:
    struct Limits {
        int64_t downtime_us = 2000;  // what copying the rest may take while the process is frozen
        int most_rounds = 30;
        int patience = 3;  // so many rounds in a row may bring nothing
    };
    enum class Verdict {
        go_on,
        good,     // the rest is small enough
        hopeless  // it does not get smaller any more: another way, or a longer stop
    };

    StoppingRule() = default;
    explicit StoppingRule(const Limits& limits) : limits_(limits) {}

    // Before the first round: it does not copy everything, only what was written in the last `us`.
    // If that was little the first round may be the last. (Another one would not help where the
    // same pages are written again and again, and where they are others each time this is their
    // rate.)
    void goes_on_after(int64_t us) { last_us_ = us; }

    // A round that copied `bytes` in `us`; the first one copies everything. What is dirty then is
    // what was written in these `us`.
    Verdict after_round(uint64_t bytes, int64_t us);

    // What the process writes, by the last round: bytes per second; 0 before the second round.
    double dirty_rate() const { return dirty_rate_; }
    // How long the process would be frozen for its memory now, by what is known; µs.
    int64_t estimated_downtime_us() const { return downtime_us_; }
    int rounds() const { return rounds_; }

  private:
    Limits limits_;
    int rounds_ = 0, vain_ = 0;
    uint64_t least_bytes_ = 0;  // of a round after the first
    int64_t last_us_ = 0;       // length of the round before, or since the last copy; 0: none
    double dirty_rate_ = 0, copy_rate_ = 0;
    int64_t downtime_us_ = 0;
};

}  // namespace ghost::core
