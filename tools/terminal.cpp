// SPDX-License-Identifier: BSD-3-Clause
#include "tools/terminal.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <unistd.h>

#include "base/clock.hpp"

namespace ghost::tools {
namespace {

constexpr int64_t rate_after_us = 50000;  // a mean over less says nothing

}  // namespace

std::string bytes_text(uint64_t bytes) {
    if (bytes < 1024) return fmt::format("{} B", bytes);
    const char* units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(bytes) / 1024;
    size_t unit = 0;
    for (; value >= 1024 && unit < 3; ++unit) value /= 1024;
    return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string time_text(int64_t us) {
    if (us < 1000) return fmt::format("{} µs", us);
    if (us < 1000000) return fmt::format("{:.1f} ms", static_cast<double>(us) / 1e3);
    return fmt::format("{:.2f} s", static_cast<double>(us) / 1e6);
}

ProgressLine::ProgressLine() : terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(const std::string& what, uint64_t done, uint64_t total) {
    if (!terminal_) return;
    constexpr size_t width = 30;
    std::string bar;
    if (total > 0) {
        size_t filled = static_cast<size_t>(static_cast<double>(std::min(done, total)) /
                                            static_cast<double>(total) * width);
        bar = fmt::format(" [{}{}]", std::string(filled, '#'), std::string(width - filled, '.'));
    }
    std::string amount = done > 0 ? " " + bytes_text(done) : "";
    const int64_t now = monotonic_us();
    if (begin_us_ == 0) begin_us_ = now;
    const double rate = static_cast<double>(done) / static_cast<double>(now - begin_us_ + 1);
    if (done > 0 && now - begin_us_ > rate_after_us) {
        amount += fmt::format("  {}/s", bytes_text(static_cast<uint64_t>(rate * 1e6)));
        if (total > done)
            amount += fmt::format(
                "  {} left",
                time_text(static_cast<int64_t>(static_cast<double>(total - done) / rate)));
    }
    // Carriage return and "erase to the end of the line" (ECMA-48, EL).
    fmt::print(stderr, "\r{}{}{}\033[K", what, bar, amount);
    std::fflush(stderr);
    shown_ = true;
}

void ProgressLine::clear() {
    if (!shown_) return;
    fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
    shown_ = false;
}

}  // namespace ghost::tools
