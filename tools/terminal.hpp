// SPDX-License-Identifier: BSD-3-Clause
// What a person at a terminal sees: amounts with units, progress bars.
#pragma once

#include <cstdint>
#include <string>

namespace ghost::tools {

// "512 B", "1.5 MiB".
std::string bytes_text(uint64_t bytes);
// "850 µs", "12.3 ms", "1.20 s".
std::string time_text(int64_t us);

// One line on standard error that is overwritten; nothing if that is no terminal.
class ProgressLine {
  public:
    ProgressLine();
    ~ProgressLine() { clear(); }
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    // total 0: unknown, no bar. What follows the amount is the mean rate since the first call and,
    // with a total, the time left at it.
    void show(const std::string& what, uint64_t done, uint64_t total);
    void clear();

  private:
    bool terminal_;
    bool shown_ = false;
    int64_t begin_us_ = 0;
};

}  // namespace ghost::tools
