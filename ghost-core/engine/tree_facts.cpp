// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/tree_facts.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/proc.hpp"
#include "base/user_space.hpp"
#include "ghost-core/criu/criu_images.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

constexpr const char* removed_mark = " (deleted)";

class Needs {
  public:
    void add(const Task& task);
    Json result() const;

  private:
    void add_folders(pid_t pid);
    void add_descriptors(pid_t pid);
    void add_named(const std::string& link, const std::string& path);
    void add_removed(const std::string& link, const std::string& path);
    void add_limits(pid_t pid);
    void add_memory(pid_t pid);
    void add_spaces(pid_t pid);

    std::set<std::string> folders_, pipes_;
    std::map<std::string, uint64_t> removed_;  // folder to bytes
    std::set<std::pair<dev_t, ino_t>> seen_;   // of those
    int highest_ = 0;
    std::map<std::string, uint64_t> limits_;
    std::vector<std::string> spaces_;
    uint64_t memory_ = 0;
};

// What has to be there by its name, beside files (file_facts()).
void Needs::add_named(const std::string& link, const std::string& path) {
    struct stat info {};
    if (!path.starts_with("/") || path.ends_with(removed_mark) || is_of_kernel(path) ||
        stat(link.c_str(), &info) != 0)
        return;
    if (S_ISDIR(info.st_mode)) folders_.insert(path);
    if (S_ISFIFO(info.st_mode)) pipes_.insert(path);
}

void Needs::add_folders(pid_t pid) {
    for (const auto* name : {"cwd", "root"}) {
        const auto link = fmt::format("/proc/{}/{}", pid, name);
        add_named(link, link_of(link));
    }
}

// A file without a name is made again where it was.
void Needs::add_removed(const std::string& link, const std::string& path) {
    struct stat info {};
    if (!path.starts_with("/") || path.starts_with("/memfd:") || !path.ends_with(removed_mark) ||
        stat(link.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink != 0 ||
        !seen_.emplace(info.st_dev, info.st_ino).second)
        return;
    removed_[std::filesystem::path(path).parent_path()] +=
        static_cast<uint64_t>(info.st_blocks) * 512;
}

void Needs::add_descriptors(pid_t pid) {
    const auto folder = fmt::format("/proc/{}/fd", pid);
    for (const int number : numbers_in(folder)) {
        highest_ = std::max(highest_, number);
        const auto link = fmt::format("{}/{}", folder, number);
        const auto path = link_of(link);
        add_named(link, path);
        add_removed(link, path);
    }
}

void Needs::add_limits(pid_t pid) {
    std::ifstream in(fmt::format("/proc/{}/limits", pid));
    std::string line;
    std::getline(in, line);
    // "Max open files            1024                 1048576              files": columns
    while (std::getline(in, line)) {
        if (line.size() < 68) continue;
        auto name = line.substr(4, 22);
        name.resize(name.find_last_not_of(' ') + 1);
        const auto hard = line.substr(47, 21);
        const uint64_t value =
            hard.starts_with("unlimited") ? ~uint64_t{0} : std::strtoull(hard.c_str(), nullptr, 10);
        auto& most = limits_[name];
        most = std::max(most, value);
    }
}

void Needs::add_memory(pid_t pid) {
    std::ifstream in(fmt::format("/proc/{}/status", pid));
    for (std::string line; std::getline(in, line);)
        for (const auto* key : {"RssAnon:", "RssShmem:", "VmSwap:"})
            if (line.starts_with(key))
                memory_ += std::strtoull(line.c_str() + std::strlen(key), nullptr, 10) * 1024;
}

void Needs::add_spaces(pid_t pid) {
    for (const auto* space : {"pid", "ipc", "net", "mnt", "uts", "user", "cgroup", "time"}) {
        const auto its = link_of(fmt::format("/proc/{}/ns/{}", pid, space));
        if (its.empty() || its == link_of(fmt::format("/proc/self/ns/{}", space))) continue;
        if (std::find(spaces_.begin(), spaces_.end(), space) == spaces_.end())
            spaces_.emplace_back(space);
    }
}

void Needs::add(const Task& task) {
    add_folders(task.pid);
    add_descriptors(task.pid);
    add_limits(task.pid);
    add_memory(task.pid);
    add_spaces(task.pid);
}

Json Needs::result() const {
    Json limits = Json::object();
    for (const auto& [name, value] : limits_) limits[name] = value;
    return {{"memory", memory_},   {"folders", folders_},    {"pipes", pipes_},
            {"limits", limits},    {"spaces", spaces_},      {"descriptors", highest_},
            {"removed", removed_}, {"groups", user_groups()}};
}

Json needs_of(const std::vector<Task>& tasks) {
    Needs needs;
    for (const auto& task : tasks) needs.add(task);
    return needs.result();
}

SeenFiles files_of(const std::vector<Task>& tasks, Ghosts ghosts, const SeenFiles& before) {
    std::vector<pid_t> pids;
    for (const auto& task : tasks) pids.push_back(task.pid);
    return see_files(used_files(pids), ghosts, before);
}

std::set<std::string> names_in(const Json& needs, const char* key) {
    std::set<std::string> out;
    if (!needs.is_object()) return out;
    for (const auto& name : needs.value(key, Json::array()))
        if (name.is_string()) out.insert(name.get<std::string>());
    return out;
}

// Of `names` those that `others` does not have.
void add_missing(const std::set<std::string>& names, const std::set<std::string>& others,
                 Json& out) {
    for (const auto& name : names)
        if (!others.contains(name)) out.push_back(name);
}

// What of `facts` is named in `others` too.
void keep_common(TreeFacts& facts, const TreeFacts& others) {
    std::erase_if(facts.files, [&](const auto& one) { return !others.files.contains(one.first); });
    for (const char* key : {"folders", "pipes"}) {
        auto names = names_in(facts.needs, key);
        const auto here = names_in(others.needs, key);
        std::erase_if(names, [&](const std::string& name) { return !here.contains(name); });
        facts.needs[key] = std::move(names);
    }
}

}  // namespace

std::string TreeFacts::host() const {
    return host_facts(files);
}

Result<TreeFacts> facts_of(pid_t root, Ghosts ghosts) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    return facts_of(*tasks, ghosts, {});
}

TreeFacts facts_of(const std::vector<Task>& tasks, Ghosts ghosts, const TreeFacts& before) {
    return {files_of(tasks, ghosts, before.files), needs_of(tasks)};
}

Result<Json> needs_of(pid_t root) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    return needs_of(*tasks);
}

Status Looks::look() {
    constexpr useconds_t pause_us = 10'000;
    if (looks_ > 0) usleep(pause_us);
    auto tasks = list_tree(root_);
    if (!tasks) return tasks.error();
    latest_ = facts_of(*tasks, ghosts_, latest_);
    auto lasting = latest_;
    if (looks_++ > 0) keep_common(lasting, lasting_);
    lasting_ = std::move(lasting);
    return {};
}

Status SkeletonFacts::look(pid_t root, Ghosts ghosts) {
    ghosts_ = ghosts;
    auto found = facts_of(root, ghosts);
    if (!found) return found.error();
    before_ = std::move(*found);
    return {};
}

Status SkeletonFacts::stopped() {
    stop_ns_ = realtime_us() * 1000;
    return {};
}

TreeFacts SkeletonFacts::by(const SkeletonFiles& skeleton) const {
    const auto named = named_files(skeleton);
    if (named.empty()) return before_;  // not understood
    UsedFiles files;
    std::set<std::string> folders, pipes;
    for (const auto& one : named) {
        if (S_ISREG(one.mode))
            add_use(files, one.path,
                    one.written   ? FileUse::written
                    : one.is_open ? FileUse::open
                                  : FileUse::mapped);
        if (is_of_kernel(one.path)) continue;
        if (S_ISDIR(one.mode)) folders.insert(one.path);
        if (S_ISFIFO(one.mode)) pipes.insert(one.path);
    }
    TreeFacts out{see_files(files, ghosts_, before_.files, stop_ns_), before_.needs};
    if (out.needs.is_object()) {
        out.needs["folders"] = folders;
        out.needs["pipes"] = pipes;
    }
    return out;
}

void put_needs(const Json& needs, Json& metadata) {
    const auto at = metadata.find("needs");
    if (at != metadata.end() && at->is_object() && needs.is_object()) *at = needs;
}

std::optional<std::string> needs_at_stop(const TreeFacts& told, const TreeFacts& stopped) {
    Json released = Json::array(), files = Json::array(), needs = Json::object();
    for (const auto& [path, seen] : told.files)
        if (!stopped.files.contains(path)) released.push_back(path);
    for (const auto& [path, seen] : stopped.files) {
        const auto known = told.files.find(path);
        if (known != told.files.end() && tells_of(known->second.entry, seen.entry)) continue;
        files.push_back(seen.entry);
        if (known != told.files.end()) released.push_back(path);
    }
    bool same = released.empty() && files.empty();
    for (const char* key : {"folders", "pipes"}) {
        const auto before = names_in(told.needs, key), now = names_in(stopped.needs, key);
        Json more = Json::array();
        add_missing(before, now, released);
        add_missing(now, before, more);
        same = same && before == now;
        needs[key] = std::move(more);
    }
    if (same) return {};
    const Json out{{"released", std::move(released)},
                   {"files", std::move(files)},
                   {"needs", std::move(needs)}};
    return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace ghost::core
