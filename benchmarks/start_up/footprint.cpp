// SPDX-License-Identifier: BSD-3-Clause
#include "benchmarks/start_up/footprint.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/file.hpp"

namespace ghost::bench {

namespace fs = std::filesystem;

const char* const mark_variable = "GHOST_BENCH_MARK";

namespace {

std::string content(const fs::path& path) {
    auto text = read_file(path);
    return text ? std::move(*text) : std::string();
}

std::optional<Holds> held_by(const fs::path& process) {
    auto holds = parse_rollup(content(process / "smaps_rollup"));
    std::error_code failed;
    if (holds)
        holds->fds =
            static_cast<double>(std::distance(fs::directory_iterator(process / "fd", failed), {}));
    return failed ? std::nullopt : holds;
}

}  // namespace

double middle(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

std::optional<double> parse_init(const std::string& line) {
    int rank = 0;
    double seconds = 0;
    if (std::sscanf(line.c_str(), "init %d %lf", &rank, &seconds) != 2) return std::nullopt;
    return seconds;
}

std::optional<double> parse_ready(const std::string& line) {
    int rank = 0;
    double bytes = 0;
    if (std::sscanf(line.c_str(), "ready %d %lf", &rank, &bytes) != 2) return std::nullopt;
    return bytes / 1024;
}

std::optional<Holds> parse_rollup(const std::string& text) {
    Holds holds;
    bool found = false;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream fields(line);
        std::string name;
        double kb = 0;
        fields >> name >> kb;
        if (name == "Pss:") {
            holds.pss_kb = kb;
            found = true;
        }
        if (name == "Private_Clean:" || name == "Private_Dirty:") holds.private_kb += kb;
    }
    return found ? std::optional(holds) : std::nullopt;
}

std::map<std::string, std::vector<Holds>> marked_processes(const std::string& mark) {
    const std::string wanted = '\0' + std::string(mark_variable) + "=" + mark + '\0';
    std::map<std::string, std::vector<Holds>> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
        if (entry.path().filename().string().find_first_not_of("0123456789") != std::string::npos)
            continue;
        if (('\0' + content(entry.path() / "environ")).find(wanted) == std::string::npos) continue;
        std::string name = content(entry.path() / "comm");
        name = name.substr(0, name.find('\n'));
        if (auto holds = held_by(entry.path())) found[name].push_back(*holds);
    }
    return found;
}

Holds median(const std::vector<Holds>& all) {
    auto of = [&](double Holds::*member) {
        std::vector<double> values;
        for (const Holds& each : all) values.push_back(each.*member);
        return middle(values);
    };
    return {of(&Holds::pss_kb), of(&Holds::private_kb), of(&Holds::fds), of(&Holds::heap_kb)};
}

double growth_per_rank(const std::map<int, double>& by_ranks) {
    const auto count = static_cast<double>(by_ranks.size());
    double x = 0, y = 0, xx = 0, xy = 0;
    for (const auto& [ranks, value] : by_ranks) {
        x += ranks;
        y += value;
        xx += static_cast<double>(ranks) * ranks;
        xy += ranks * value;
    }
    const double below = count * xx - x * x;
    return below > 0 ? (count * xy - x * y) / below : 0;
}

}  // namespace ghost::bench
