// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/tree_facts.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/proc.hpp"
#include "base/user_space.hpp"
#include "ghost-core/criu/criu_images.hpp"
#include "ghost-core/engine/lock_handover.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

// Gathers what the tasks of a tree need.
class NeedsOf {
  public:
    void add(const Task& task);
    Needs result() const;

  private:
    void add_folders(pid_t pid);
    void add_descriptors(pid_t pid);
    void add_named(const std::string& link, const std::string& path);
    void add_removed(const std::string& link, const std::string& path);
    void add_limits(pid_t pid);
    void add_memory(pid_t pid);
    void add_spaces(pid_t pid);

    Needs all_;
    std::set<std::string> folders_, pipes_;
    std::set<std::pair<dev_t, ino_t>> seen_;  // of the removed files
};

// What has to be there by its name, beside files (file_facts()).
void NeedsOf::add_named(const std::string& link, const std::string& path) {
    struct stat info {};
    if (!path.starts_with("/") || path.ends_with(removed_mark) || is_of_kernel(path) ||
        stat(link.c_str(), &info) != 0)
        return;
    if (S_ISDIR(info.st_mode)) folders_.insert(path);
    if (S_ISFIFO(info.st_mode)) pipes_.insert(path);
}

void NeedsOf::add_folders(pid_t pid) {
    for (const auto* name : {"cwd", "root"}) {
        const auto link = fmt::format("/proc/{}/{}", pid, name);
        add_named(link, link_of(link));
    }
}

// A file without a name is made again where it was.
void NeedsOf::add_removed(const std::string& link, const std::string& path) {
    struct stat info {};
    if (!path.starts_with("/") || path.starts_with("/memfd:") || !path.ends_with(removed_mark) ||
        stat(link.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink != 0 ||
        !seen_.emplace(info.st_dev, info.st_ino).second)
        return;
    all_.removed[std::filesystem::path(path).parent_path()] +=
        static_cast<uint64_t>(info.st_blocks) * 512;
}

void NeedsOf::add_descriptors(pid_t pid) {
    const auto folder = fmt::format("/proc/{}/fd", pid);
    for (const int number : numbers_in(folder)) {
        all_.descriptors = std::max(all_.descriptors, number);
        const auto link = fmt::format("{}/{}", folder, number);
        const auto path = link_of(link);
        add_named(link, path);
        add_removed(link, path);
    }
}

void NeedsOf::add_limits(pid_t pid) {
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
        auto& most = all_.limits[name];
        most = std::max(most, value);
    }
}

void NeedsOf::add_memory(pid_t pid) {
    std::ifstream in(fmt::format("/proc/{}/status", pid));
    for (std::string line; std::getline(in, line);)
        for (const auto* key : {"RssAnon:", "RssShmem:", "VmSwap:"})
            if (line.starts_with(key))
                all_.memory += std::strtoull(line.c_str() + std::strlen(key), nullptr, 10) * 1024;
}

void NeedsOf::add_spaces(pid_t pid) {
    for (const auto* space : {"pid", "ipc", "net", "mnt", "uts", "user", "cgroup", "time"}) {
        const auto its = link_of(fmt::format("/proc/{}/ns/{}", pid, space));
        if (its.empty() || its == link_of(fmt::format("/proc/self/ns/{}", space))) continue;
        if (std::ranges::find(all_.spaces, space) == all_.spaces.end())
            all_.spaces.emplace_back(space);
    }
}

void NeedsOf::add(const Task& task) {
    add_folders(task.pid);
    add_descriptors(task.pid);
    add_limits(task.pid);
    add_memory(task.pid);
    add_spaces(task.pid);
}

Needs NeedsOf::result() const {
    auto out = all_;
    out.folders = {folders_.begin(), folders_.end()};
    out.pipes = {pipes_.begin(), pipes_.end()};
    out.groups = user_groups();
    return out;
}

Needs needs_of(const std::vector<Task>& tasks) {
    NeedsOf needs;
    for (const auto& task : tasks) needs.add(task);
    return needs.result();
}

SeenFiles files_of(const std::vector<Task>& tasks, Ghosts ghosts, const SeenFiles& before) {
    std::vector<pid_t> pids;
    for (const auto& task : tasks) pids.push_back(task.pid);
    return see_files(used_files(pids), ghosts, before);
}

using Names = std::vector<std::string>;  // each once, ascending

// Of `names` those that `others` does not have.
void add_missing(const Names& names, const Names& others, Names& out) {
    std::ranges::set_difference(names, others, std::back_inserter(out));
}

void keep_common(Names& names, const Names& others) {
    std::erase_if(
        names, [&](const std::string& name) { return !std::ranges::binary_search(others, name); });
}

// What of `facts` is named in `others` too.
void keep_common(TreeFacts& facts, const TreeFacts& others) {
    std::erase_if(facts.files, [&](const auto& one) { return !others.files.contains(one.first); });
    if (!facts.needs || !others.needs) return;
    keep_common(facts.needs->folders, others.needs->folders);
    keep_common(facts.needs->pipes, others.needs->pipes);
}

constexpr schema::Field named_fields[] = {
    schema::field<&NeedsAtStop::Named::folders>("folders", "that have come").as_name().or_default(),
    schema::field<&NeedsAtStop::Named::pipes>("pipes", "that have come").as_name().or_default(),
};
constexpr schema::Field at_stop_fields[] = {
    schema::field<&NeedsAtStop::released>("released", "paths not needed any more")
        .as_name()
        .or_default(),
    schema::field<&NeedsAtStop::files>("files", "that have come or changed").or_default(),
    schema::field<&NeedsAtStop::needs>("needs", "that have come").or_default(),
};

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

Result<Needs> needs_of(pid_t root) {
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
    if (locks_ && lasting.needs) {
        auto locks = exclusive_locks_of(root_);
        if (!locks) return locks.error();
        lasting.needs->locks = std::move(*locks);
    }
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
    if (out.needs) {
        out.needs->folders = {folders.begin(), folders.end()};
        out.needs->pipes = {pipes.begin(), pipes.end()};
    }
    return out;
}

constinit const schema::Record NeedsAtStop::Named::table =
    schema::record<NeedsAtStop::Named>("needs", "that have come", named_fields);
constinit const schema::Record NeedsAtStop::table =
    schema::record<NeedsAtStop>("needs at the stop", "against those of the head", at_stop_fields);

std::optional<NeedsAtStop> needs_at_stop(const TreeFacts& told, const TreeFacts& stopped) {
    NeedsAtStop out;
    for (const auto& [path, seen] : told.files)
        if (!stopped.files.contains(path)) out.released.push_back(path);
    for (const auto& [path, seen] : stopped.files) {
        const auto known = told.files.find(path);
        if (known != told.files.end() && tells_of(known->second.entry, seen.entry)) continue;
        out.files.push_back(
            {seen.entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)});
        if (known != told.files.end()) out.released.push_back(path);
    }
    const auto before = told.needs.value_or(Needs()), now = stopped.needs.value_or(Needs());
    add_missing(before.folders, now.folders, out.released);
    add_missing(now.folders, before.folders, out.needs.folders);
    add_missing(before.pipes, now.pipes, out.released);
    add_missing(now.pipes, before.pipes, out.needs.pipes);
    const bool same = out.released.empty() && out.files.empty() && out.needs.folders.empty() &&
                      out.needs.pipes.empty();
    return same ? std::nullopt : std::optional(out);
}

}  // namespace ghost::core
