// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/user_limits.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/file.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/kernel_state.hpp"
#include "ghost-core/format/services.hpp"

namespace ghost::core {
namespace {

namespace fs = std::filesystem;

// Of a file, by device and inode.
using Which = std::pair<dev_t, ino_t>;

bool is_root() {
    return ::geteuid() == 0;
}

std::optional<Which> which_is(const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) return {};
    return Which{info.st_dev, info.st_ino};
}

// "inotify wd:1 ino:5d2 sdev:800003 mask:2 …" of proc_pid_fdinfo(5); the kernel's own form of a
// device number.
std::set<Which> watched_by(pid_t pid, int number) {
    constexpr int minor_bits = 20;
    std::set<Which> out;
    std::ifstream in(fmt::format("/proc/{}/fdinfo/{}", pid, number));
    for (std::string line; std::getline(in, line);) {
        unsigned long inode = 0;
        unsigned device = 0;
        if (std::sscanf(line.c_str(), "inotify wd:%*x ino:%lx sdev:%x", &inode, &device) == 2)
            out.emplace(makedev(device >> minor_bits, device & ((1U << minor_bits) - 1)), inode);
    }
    return out;
}

// Where a program is likely to watch: its arguments, its folder, those of its open files.
std::set<fs::path> near(const Task& task) {
    std::set<fs::path> out;
    const auto add = [&out](const fs::path& path) {
        if (!path.is_absolute() || path.string().ends_with(removed_mark)) return;
        out.insert(path);
        out.insert(path.parent_path());
    };
    const fs::path folder = link_of(fmt::format("/proc/{}/cwd", task.pid));
    add(folder);
    for (const int number : numbers_in(fmt::format("/proc/{}/fd", task.pid)))
        add(link_of(fmt::format("/proc/{}/fd/{}", task.pid, number)));
    const auto words = read_file(fmt::format("/proc/{}/cmdline", task.pid));
    std::istringstream in(words ? *words : std::string());
    for (std::string word; std::getline(in, word, '\0');) {
        if (const auto value = word.find('='); value != std::string::npos) word.erase(0, value + 1);
        if (!word.empty()) add((folder / word).lexically_normal());
    }
    for (const auto* common : {"/etc", "/run"}) out.insert(common);
    return out;
}

// Which of `wanted` are there, or one step below; what has been found is taken out.
void find_in(const fs::path& place, std::set<Which>& wanted, std::vector<std::string>& out) {
    constexpr size_t most = 10'000;  // entries of one folder
    const auto look = [&](const fs::path& path) {
        const auto which = which_is(path.string());
        if (which && wanted.erase(*which) != 0) out.push_back(path.string());
    };
    look(place);
    std::error_code ignored;
    size_t seen = 0;
    for (fs::directory_iterator at(place, ignored), end; at != end && !wanted.empty();
         at.increment(ignored)) {
        if (ignored || ++seen > most) return;
        look(at->path());
    }
}

std::vector<std::string> find_watched(const std::vector<Task>& tree, std::set<Which>& wanted) {
    std::vector<std::string> out;
    std::set<fs::path> places;
    if (wanted.empty()) return out;
    for (const auto& task : tree) places.merge(near(task));
    for (const auto& place : places) {
        if (wanted.empty()) break;
        find_in(place, wanted, out);
    }
    return out;
}

bool is_inotify(pid_t pid, int number) {
    return link_of(fmt::format("/proc/{}/fd/{}", pid, number)) == "anon_inode:inotify";
}

// Files of its /proc are root's then, as are those of a process without memory (proc(5)).
bool is_undumpable(const Task& task) {
    struct stat info {};
    return stat(fmt::format("/proc/{}/status", task.pid).c_str(), &info) == 0 &&
           info.st_uid != ::geteuid() && !is_ending(task.pid);
}

// Which a restore can give back to its owner as root only.
bool is_anothers_memfd(pid_t pid, int number) {
    const auto path = fmt::format("/proc/{}/fd/{}", pid, number);
    struct stat info {};
    return link_of(path).starts_with("/memfd:") && stat(path.c_str(), &info) == 0 &&
           info.st_uid != ::geteuid();
}

// All threads may have filters of their own.
bool has_filter(const Task& task) {
    const auto threads = fmt::format("/proc/{}/task", task.pid);
    for (const pid_t thread : numbers_in(threads)) {
        std::ifstream in(fmt::format("{}/{}/status", threads, thread));
        for (std::string line; std::getline(in, line);)
            if (line.starts_with("Seccomp:") && line.find('2') != std::string::npos) return true;
    }
    return false;
}

// All that the tree has open, or runs.
std::set<Which> open_files(const std::vector<Task>& tree) {
    std::set<Which> out;
    for (const auto& task : tree) {
        const auto folder = fmt::format("/proc/{}/fd", task.pid);
        for (const int number : numbers_in(folder))
            if (const auto one = which_is(fmt::format("{}/{}", folder, number))) out.insert(*one);
        if (const auto one = which_is(fmt::format("/proc/{}/exe", task.pid))) out.insert(*one);
    }
    return out;
}

Which which_is(const FileMapping& one) {
    return {one.device, one.inode};
}

// As a semaphore of sem_open(3), whose first name is a passing one: others may come to it.
bool has_other_name(const FileMapping& one) {
    std::error_code ignored;
    fs::directory_iterator at(fs::path(one.name).parent_path(), ignored);
    return std::any_of(at, fs::directory_iterator(), [&](const auto& entry) {
        return which_is(entry.path().string()) == which_is(one);
    });
}

// criu opens it by its name, or as one of the tree has it open; memory of several processes needs
// no file.
Refusal why_not_opened(const FileMapping& one, const std::set<Which>& open) {
    if (is_shared_copy(one.name)) return {};  // read where it is mapped
    if (one.name.starts_with("/secretmem")) return Reason::secret_memory;
    if (one.name.starts_with("/anon_hugepage") && one.is_private) return Reason::private_huge_pages;
    if (one.is_removed()) {
        if (open.contains(which_is(one)) || one.name.starts_with("/dev/zero ")) return {};
        return one.is_private || has_other_name(one) ? Refusal(Reason::user_mapping) : Refusal();
    }
    const auto now = which_is(one.name);
    if (!now || now->second != one.inode) return Reason::user_mapping;
    return ::access(one.name.c_str(), R_OK) == 0 ? Refusal() : Refusal(Reason::user_unreadable);
}

// What stands in the way, as one look finds it: which mapping, and the line about it.
std::vector<std::pair<std::string, std::string>> mappings_in_the_way(const std::vector<Task>& tree,
                                                                     const std::string& who) {
    std::vector<std::pair<std::string, std::string>> out;
    const auto open = open_files(tree);
    std::map<std::string, Refusal> known;  // nearly all have the same libraries
    for (const auto& task : tree) {
        std::set<std::string> told;
        for (const auto& one : file_mappings_of(task.pid)) {
            const auto key = fmt::format("{}{}{}", one.is_private, one.inode, one.name);
            auto [found, is_new] = known.try_emplace(key);
            if (is_new) found->second = why_not_opened(one, open);
            if (found->second && told.insert(one.name).second)
                out.emplace_back(
                    fmt::format("{} {}", task.pid, key),
                    found->second.of(who, task.inner, task.name, "mapping " + one.name));
        }
    }
    return out;
}

// The tree runs: between a look at what it has open and one at what it maps it opens files, maps
// and removes them. What stood there before a second look at both, and is not open then, stays.
void judge_mappings(const std::vector<Task>& tree, const std::string& who,
                    std::vector<std::string>& out) {
    auto found = mappings_in_the_way(tree, who);
    if (found.empty()) return;
    std::set<std::string> again;
    for (auto& [which, line] : mappings_in_the_way(tree, who)) again.insert(std::move(which));
    for (auto& [which, line] : found)
        if (again.contains(which)) out.push_back(std::move(line));
}

}  // namespace

Refusal why_not_watched(const std::vector<Task>& tree, const Task& task, int number) {
    if (is_root()) return {};
    auto wanted = watched_by(task.pid, number);
    find_watched(tree, wanted);
    return wanted.empty() ? Refusal() : Refusal(Reason::user_watch);
}

std::vector<std::string> watched_paths(pid_t root) {
    if (is_root()) return {};
    const auto tree = list_tree(root);
    if (!tree) return {};
    std::set<Which> wanted;
    for (const auto& task : *tree)
        for (const int number : numbers_in(fmt::format("/proc/{}/fd", task.pid)))
            if (is_inotify(task.pid, number)) wanted.merge(watched_by(task.pid, number));
    return find_watched(*tree, wanted);
}

std::vector<std::string> only_for_root(const std::vector<Task>& tree, const std::string& who) {
    std::vector<std::string> out;
    if (is_root()) return out;
    for (const auto& task : tree) {
        const auto add = [&](Reason reason, const std::string& what) {
            out.push_back(Refusal(reason).of(who, task.inner, task.name, what));
        };
        if (is_undumpable(task)) add(Reason::user_undumpable, "memory");
        if (has_filter(task)) add(Reason::user_filter, "seccomp filter");
        for (const int number : numbers_in(fmt::format("/proc/{}/fd", task.pid)))
            if (is_anothers_memfd(task.pid, number))
                add(Reason::user_memfd, fmt::format("descriptor {}", number));
    }
    judge_mappings(tree, who, out);
    return out;
}

}  // namespace ghost::core
