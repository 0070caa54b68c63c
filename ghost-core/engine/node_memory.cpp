// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/node_memory.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <limits>
#include <string>

#include "ghost-core/criu/tree.hpp"

namespace ghost::core {

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

// Kernel: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
struct Version {
    const char *most, *used, *given_back;
};
constexpr Version versions[] = {
    {"memory.max", "memory.current", "inactive_file"},
    {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
};

// Of one group; its ancestors may have less.
uint64_t left_in(const fs::path& group) {
    uint64_t least = unlimited;
    for (const auto& version : versions) {
        const uint64_t most = number_in(group / version.most);
        const uint64_t used = number_in(group / version.used);
        if (most == unlimited || used == unlimited) continue;
        const uint64_t given_back = sum_of(group / "memory.stat", {version.given_back}, 1);
        const uint64_t left = most + given_back;
        least = std::min(least, left > used ? left - used : 0);
    }
    return least;
}

// Lines "4:memory:/a/b" (version 1) and "0::/a/b" (version 2).
uint64_t left_in_own_groups() {
    uint64_t least = unlimited;
    std::ifstream in("/proc/self/cgroup");
    for (std::string line; std::getline(in, line);) {
        const auto second = line.find(':', line.find(':') + 1);
        if (second == std::string::npos || !line.substr(second).starts_with(":/")) continue;
        const std::string named = line.substr(0, second), group = line.substr(second + 2);
        if (named == "0:") least = std::min(least, memory_left("/sys/fs/cgroup", group));
        if (named.ends_with(":memory"))
            least = std::min(least, memory_left("/sys/fs/cgroup/memory", group));
    }
    return least;
}

}  // namespace

uint64_t memory_of_tree(pid_t root) {
    uint64_t sum = 0;
    if (auto tasks = list_tree(root))
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

}  // namespace ghost::core
