// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/stopping_rule.hpp"

#include <algorithm>

namespace ghost::core {
namespace {

constexpr uint64_t telling_bytes = 1 << 20;  // less says nothing about how fast copying is
constexpr double shrinking = 0.9;            // a round with less than so much of the least helps
// A first round that takes no more than so many times the downtime may be the last one: if all of
// that had to be read again it would do no great harm.
constexpr int64_t harmless = 4;

}  // namespace

StoppingRule::Verdict StoppingRule::after_round(uint64_t bytes, int64_t us) {
    us = std::max<int64_t>(us, 1);
    rounds_++;
    if (rounds_ == 1 || bytes >= telling_bytes)
        copy_rate_ = static_cast<double>(bytes) / static_cast<double>(us);
    if (last_us_ == 0) {
        last_us_ = us;
        return Verdict::go_on;
    }
    // These bytes were written while the round before went on.
    const double per_us = static_cast<double>(bytes) / static_cast<double>(last_us_);
    dirty_rate_ = per_us * 1e6;
    last_us_ = us;
    const double rest = per_us * static_cast<double>(us);
    downtime_us_ = copy_rate_ > 0 ? static_cast<int64_t>(rest / copy_rate_) : 0;
    if (rounds_ == 1 && us > harmless * limits_.downtime_us) return Verdict::go_on;
    if (downtime_us_ <= limits_.downtime_us) return Verdict::good;
    if (rounds_ == 1) return Verdict::go_on;
    const bool helped =
        rounds_ == 2 || static_cast<double>(bytes) < shrinking * static_cast<double>(least_bytes_);
    vain_ = helped ? 0 : vain_ + 1;
    least_bytes_ = rounds_ == 2 ? bytes : std::min(least_bytes_, bytes);
    if (vain_ >= limits_.patience || rounds_ >= limits_.most_rounds) return Verdict::hopeless;
    return Verdict::go_on;
}

}  // namespace ghost::core
