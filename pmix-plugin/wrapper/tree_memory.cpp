#include "pmix-plugin/wrapper/tree_memory.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fstream>
#include <limits>
#include <string>

#include "ghost-core/process/tree.hpp"

namespace ghost::plugin {
namespace {

// Lines "Name:   123 kB"; the sum of those named, in bytes.
uint64_t sum_of(const std::string& path, std::initializer_list<const char*> names) {
    std::ifstream in(path);
    uint64_t sum = 0, value = 0;
    std::string word;
    while (in >> word)
        if (std::find(names.begin(), names.end(), word) != names.end() && in >> value)
            sum += value * 1024;
    return sum;
}

uint64_t number_in(const std::string& path) {
    std::ifstream in(path);
    uint64_t value = 0;
    return in >> value ? value : std::numeric_limits<uint64_t>::max();
}

// Of cgroup 2, the nearest group only.
uint64_t left_in_group() {
    std::ifstream in("/proc/self/cgroup");
    for (std::string line; std::getline(in, line);) {
        if (!line.starts_with("0::")) continue;
        const std::string folder = "/sys/fs/cgroup" + line.substr(3);
        const uint64_t most = number_in(folder + "/memory.max");
        const uint64_t used = number_in(folder + "/memory.current");
        if (most != std::numeric_limits<uint64_t>::max() &&
            used != std::numeric_limits<uint64_t>::max())
            return most > used ? most - used : 0;
    }
    return std::numeric_limits<uint64_t>::max();
}

}  // namespace

uint64_t memory_of_tree(pid_t root) {
    uint64_t sum = 0;
    if (auto tasks = core::list_tree(root))
        for (const auto& task : *tasks)
            sum += sum_of(fmt::format("/proc/{}/status", task.pid), {"RssAnon:", "VmSwap:"});
    return sum;
}

uint64_t memory_available() {
    return std::min(sum_of("/proc/meminfo", {"MemAvailable:"}), left_in_group());
}

bool memory_is_scarce() {
    return memory_available() < sum_of("/proc/meminfo", {"MemTotal:"}) / 2;
}

}  // namespace ghost::plugin
