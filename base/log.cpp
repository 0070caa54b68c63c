// SPDX-License-Identifier: BSD-3-Clause
#include "base/log.hpp"

#include <atomic>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <string>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fd.hpp"

namespace ghost::log {
namespace {

std::string g_who = "ghost";
std::atomic<int> g_most{static_cast<int>(Level::warning)};

// Opened anew for each line: no descriptor stays open in a process that may become a ghost.
void append_line(const char* path, const std::string& line) {
    Fd fd(::open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    if (fd.valid() && ::write(fd.get(), line.data(), line.size()) < 0) return;
}

const char* level_name(Level level) {
    switch (level) {
        case Level::error:
            return "error";
        case Level::warning:
            return "warning";
        case Level::info:
            return "info";
        case Level::debug:
            return "debug";
        case Level::trace:
            return "trace";
    }
    return "?";
}

}  // namespace

void setup(std::string who, Level most) {
    g_who = std::move(who);
    g_most = static_cast<int>(most);
}

Level level_from_environment() {
    const char* text = std::getenv("OMPI_MCA_ghost_verbose");
    int value = text != nullptr ? std::atoi(text) : 1;
    if (value < 0) value = 0;
    if (value > 4) value = 4;
    return static_cast<Level>(value);
}

bool enabled(Level level) {
    return static_cast<int>(level) <= g_most.load(std::memory_order_relaxed);
}

void write(Level level, std::string_view text) {
    const char* path = std::getenv("GHOST_LOG");
    if (path != nullptr && *path != '\0') {
        timespec now{};
        clock_gettime(CLOCK_REALTIME, &now);
        append_line(path, fmt::format("{}.{:06} {} {}: {}\n", now.tv_sec, now.tv_nsec / 1000,
                                      level_name(level), g_who, text));
        return;
    }
    std::string line = fmt::format("[ghost] {}: {}\n", g_who, text);
    if (::write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

void Seldom::write(Level level, std::string_view text) {
    write(level, text, monotonic_us());
}

void Seldom::write(Level level, std::string_view text, int64_t now_us) {
    constexpr int64_t quiet_us = 60'000'000;
    if (said_ && now_us - said_at_ < quiet_us) {
        unsaid_++;
        return;
    }
    const uint64_t before = unsaid_;
    said_ = true;
    said_at_ = now_us;
    unsaid_ = 0;
    if (!enabled(level)) return;
    log::write(level, before == 0 ? std::string(text)
                                  : fmt::format("{} (and {} more like it)", text, before));
}

}  // namespace ghost::log
