// SPDX-License-Identifier: BSD-3-Clause
// Log lines of all parts: one file or stderr, one line an event, level by `ghost_verbose`.
#pragma once

#include <cstdint>
#include <fmt/format.h>
#include <string>
#include <string_view>

namespace ghost::log {

enum class Level { error = 0, warning = 1, info = 2, debug = 3, trace = 4 };

// Sets who is speaking ("node agent gn2", "wrapper rank 1") and the most detailed level that is
// written. The destination is the file named by GHOST_LOG, else standard error. A line in the file
// carries CLOCK_REALTIME in microseconds so that lines of all nodes can be merged by time.
void setup(std::string who, Level most);
// Reads the level from OMPI_MCA_ghost_verbose (0-4, default 1; more means 4).
Level level_from_environment();
bool enabled(Level level);
void write(Level level, std::string_view text);

template <typename... Args>
void error(fmt::format_string<Args...> f, Args&&... args) {
    if (enabled(Level::error)) write(Level::error, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> f, Args&&... args) {
    if (enabled(Level::warning)) write(Level::warning, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> f, Args&&... args) {
    if (enabled(Level::info)) write(Level::info, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void debug(fmt::format_string<Args...> f, Args&&... args) {
    if (enabled(Level::debug)) write(Level::debug, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void trace(fmt::format_string<Args...> f, Args&&... args) {
    if (enabled(Level::trace)) write(Level::trace, fmt::format(f, std::forward<Args>(args)...));
}

// For what anybody can bring about as often as he likes: the first time is a line, then there is
// one a minute at most, which says how often it happened meanwhile. One thread.
class Seldom {
  public:
    void write(Level level, std::string_view text);
    void write(Level level, std::string_view text, int64_t now_us);

  private:
    bool said_ = false;
    int64_t said_at_ = 0;
    uint64_t unsaid_ = 0;
};

}  // namespace ghost::log
