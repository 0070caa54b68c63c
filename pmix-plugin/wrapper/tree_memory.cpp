// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/tree_memory.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <limits>
#include <string>

#include "ghost-core/criu/tree.hpp"

namespace ghost::plugin {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t unlimited = std::numeric_limits<uint64_t>::max();

// Lines "Name:   123 kB" (unit: 1024) or "name 123"; the sum of those named, in bytes.
uint64_t sum_of(const std::string& path, std::initializer_list<const char*> names,
                uint64_t unit = 1024) {
    std::ifstream in(path);
    uint64_t sum = 0, value = 0;
    std::string word;
    while (in >> word)
        if (std::find(names.begin(), names.end(), word) != names.end() && in >> value)
            sum += value * unit;
    return sum;
}

uint64_t number_in(const std::string& path) {
    std::ifstream in(path);
    uint64_t value = 0;
    return in >> value ? value : unlimited;
}

// Of one group; its ancestors may have less.
uint64_t left_in(const fs::path& group) {
    const uint64_t most = number_in(group / "memory.max");
    const uint64_t used = number_in(group / "memory.current");
    if (most == unlimited || used == unlimited) return unlimited;
    const uint64_t given_back = sum_of(group / "memory.stat", {"inactive_file"}, 1);
    return most + given_back > used ? most + given_back - used : 0;
}

uint64_t left_in_own_groups() {
    std::ifstream in("/proc/self/cgroup");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with("0::/")) return memory_left("/sys/fs/cgroup", line.substr(4));
    return unlimited;
}

}  // namespace

uint64_t memory_of_tree(pid_t root) {
    uint64_t sum = 0;
    if (auto tasks = core::list_tree(root))
        for (const auto& task : *tasks)
            sum += sum_of(fmt::format("/proc/{}/status", task.pid), {"RssAnon:", "VmSwap:"});
    return sum;
}

uint64_t memory_left(const fs::path& root, fs::path group) {
    uint64_t least = left_in(root);
    for (; !group.empty(); group = group.parent_path())
        least = std::min(least, left_in(root / group));
    return least;
}

uint64_t memory_available() {
    return std::min(sum_of("/proc/meminfo", {"MemAvailable:"}), left_in_own_groups());
}

bool memory_is_scarce() {
    return memory_available() < sum_of("/proc/meminfo", {"MemTotal:"}) / 2;
}

}  // namespace ghost::plugin
