// SPDX-License-Identifier: BSD-3-Clause
// What `ghost top` shows of jobs at one moment, as lines: made of what their coordinators say to
// `ps`, whose version may be another one, and of what they said before.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/json.hpp"

namespace ghost::tools {

enum class LineStyle : uint8_t { plain, title, heading, busy, bad };

struct FrameLine {
    std::string text;  // UTF-8, without control characters
    LineStyle style = LineStyle::plain;
};

// Keeps what rates are made of. One thread.
class TopFrames {
  public:
    // `jobs`: of each what it said to `ps`; `now_us`: by any steady clock.
    std::vector<FrameLine> frame(const nlohmann::json& jobs, int64_t now_us);
    // The same as one object: `jobs` with "bytes_per_s" and "left_us" in each move.
    nlohmann::json json(const nlohmann::json& jobs, int64_t now_us);

  private:
    struct Sample {
        int64_t at_us = 0;
        uint64_t bytes = 0;
    };
    // By mpirun's pid and the rank.
    std::map<std::pair<int64_t, int64_t>, Sample> moves_;

    static void add_rate(nlohmann::json& move, const Sample& sample, const Sample& before);
    nlohmann::json with_rates(const nlohmann::json& jobs, int64_t now_us);
};

}  // namespace ghost::tools
