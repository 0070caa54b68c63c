// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/interval.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ghost::plugin {
namespace {

// Of an even number the greater of the two in the middle.
int64_t median(const std::deque<int64_t>& values) {
    std::vector<int64_t> sorted(values.begin(), values.end());
    const auto middle = sorted.begin() + static_cast<long>(sorted.size() / 2);
    std::ranges::nth_element(sorted, middle);
    return *middle;
}

void keep_last(std::deque<int64_t>& values, int64_t value) {
    values.push_back(value);
    if (values.size() > IntervalChoice::counted) values.pop_front();
}

}  // namespace

int64_t daly_work_us(int64_t cost, int64_t mtbf) {
    if (cost <= 0 || mtbf <= 0) return 0;
    const auto d = static_cast<double>(cost);
    const auto m = static_cast<double>(mtbf);
    if (d >= 2 * m) return mtbf;
    const double part = d / (2 * m);
    return std::llround(std::sqrt(2 * d * m) * (1 + std::sqrt(part) / 3 + part / 9) - d);
}

int64_t snapshot_cost_us(int64_t pause, int64_t lasted) {
    return pause + std::max<int64_t>(0, lasted - pause) / 10;
}

void IntervalChoice::measured(int64_t pause, int64_t lasted) {
    keep_last(costs_, snapshot_cost_us(pause, lasted));
    keep_last(lasted_, lasted);
}

int64_t IntervalChoice::interval_us() const {
    const auto cost = cost_us();
    if (!cost) return first_us;
    return std::max(
        {least_us, least_of_lasted * median(lasted_), daly_work_us(*cost, mtbf_) + *cost});
}

std::optional<int64_t> IntervalChoice::cost_us() const {
    if (costs_.empty()) return std::nullopt;
    return median(costs_);
}

}  // namespace ghost::plugin
