// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/preflight.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/proc.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/criu/criu_images.hpp"
#include "ghost-core/criu/preflight.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/engine/live_link.hpp"
#include "ghost-core/engine/node_memory.hpp"

namespace ghost::core {
namespace {

constexpr const char* removed_mark = " (deleted)";

std::string link_of(const std::string& path) {
    std::error_code ignored;
    return std::filesystem::read_symlink(path, ignored).string();
}

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
    return {{"memory", memory_},  {"folders", folders_}, {"pipes", pipes_},
            {"limits", limits},   {"spaces", spaces_},   {"descriptors", highest_},
            {"removed", removed_}};
}

std::string amount(uint64_t bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

void check_memory(const Json& needs, std::vector<Shortcoming>& out) {
    const auto wanted = needs.value("memory", uint64_t{0}), available = memory_available();
    if (available < wanted) out.push_back({"memory", amount(wanted), amount(available) + " free"});
}

void check_named(const Json& needs, std::vector<Shortcoming>& out) {
    const auto look = [&](const char* key, const char* what, mode_t kind) {
        for (const auto& name : needs.value(key, Json::array())) {
            struct stat info {};
            const auto path = name.get<std::string>();
            if (stat(path.c_str(), &info) != 0 || (info.st_mode & S_IFMT) != kind)
                out.push_back({fmt::format("{} {}: is missing", what, path), "", ""});
        }
    };
    look("folders", "folder", S_IFDIR);
    look("pipes", "named pipe", S_IFIFO);
}

void check_descriptors(const Json& needs, std::vector<Shortcoming>& out) {
    const int highest = needs.value("descriptors", 0);
    if (const auto why = why_no_descriptor(highest))
        out.push_back({fmt::format("descriptor {}: {}", highest, why.text()), "", ""});
}

// The file system of a folder, or of the nearest above it that is there.
std::optional<uint64_t> free_in(std::filesystem::path folder) {
    struct statvfs info {};
    while (statvfs(folder.c_str(), &info) != 0) {
        if (errno != ENOENT || !folder.has_relative_path()) return {};
        folder = folder.parent_path();
    }
    return uint64_t{info.f_bavail} * info.f_frsize;
}

void check_removed(const Json& needs, std::vector<Shortcoming>& out) {
    const auto removed = needs.value("removed", Json::object());
    for (const auto& [folder, bytes] : removed.items()) {
        const auto wanted = bytes.get<uint64_t>();
        const auto available = free_in(folder);
        if (available && *available < wanted)
            out.push_back({fmt::format("space in {} for files that have been removed", folder),
                           amount(wanted), amount(*available) + " free"});
    }
}

// Names as in /proc/PID/limits.
void check_limits(const Json& needs, std::vector<Shortcoming>& out) {
    static constexpr std::array<std::pair<const char*, decltype(RLIMIT_CPU)>, 15> known = {{
        {"cpu time", RLIMIT_CPU},
        {"file size", RLIMIT_FSIZE},
        {"data size", RLIMIT_DATA},
        {"stack size", RLIMIT_STACK},
        {"core file size", RLIMIT_CORE},
        {"resident set", RLIMIT_RSS},
        {"processes", RLIMIT_NPROC},
        {"open files", RLIMIT_NOFILE},
        {"locked memory", RLIMIT_MEMLOCK},
        {"address space", RLIMIT_AS},
        {"file locks", RLIMIT_LOCKS},
        {"pending signals", RLIMIT_SIGPENDING},
        {"msgqueue size", RLIMIT_MSGQUEUE},
        {"nice priority", RLIMIT_NICE},
        {"realtime priority", RLIMIT_RTPRIO},
    }};
    if (may_raise_limits()) return;
    const auto limits = needs.value("limits", Json::object());
    const auto text = [](uint64_t value) {
        return value == ~uint64_t{0} ? std::string("unlimited") : std::to_string(value);
    };
    for (const auto& [name, number] : known) {
        rlimit here{};
        if (!limits.contains(name) || getrlimit(number, &here) != 0) continue;
        const auto wanted = limits[name].get<uint64_t>();
        if (wanted > here.rlim_max)
            out.push_back(
                {fmt::format("hard limit of {}", name), text(wanted), text(here.rlim_max)});
    }
}

void check_spaces(const Json& needs, std::vector<Shortcoming>& out) {
    for (const auto& space : needs.value("spaces", Json::array())) {
        const auto name = space.get<std::string>();
        const auto path = "/proc/self/ns/" + name;
        if (access(path.c_str(), F_OK) != 0)
            out.push_back({name + " name spaces", "the kernel's support", "none"});
    }
    if (geteuid() != 0) out.push_back({"privilege", "root", fmt::format("user {}", geteuid())});
}

}  // namespace

Result<Json> needs_of(pid_t root) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    Needs needs;
    for (const auto& task : *tasks) needs.add(task);
    return needs.result();
}

Result<std::string> facts_of(pid_t root, Ghosts ghosts, const std::string& told) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    std::vector<pid_t> pids;
    for (const auto& task : *tasks) pids.push_back(task.pid);
    return host_facts(pids, ghosts, told);
}

void drop_released(const SkeletonFiles& skeleton, std::string& facts, Json& metadata) {
    const auto image = [&](std::string_view name) -> std::string_view {
        const auto at = std::ranges::find(skeleton, name, &SkeletonFiles::value_type::first);
        return at == skeleton.end() ? std::string_view() : at->second;
    };
    const auto held = paths_in(image(files_image), image(removed_image));
    if (held.empty()) return;
    const auto keep = [&](Json& of, const char* key, auto&& path_of) {
        if (!of.is_object() || !of.contains(key) || !of[key].is_array()) return;
        Json kept = Json::array();
        for (auto& one : of[key])
            if (held.count(path_of(one)) > 0) kept.push_back(std::move(one));
        of[key] = std::move(kept);
    };
    const auto itself = [](const Json& one) { return one.get<std::string>(); };
    if (const auto needs = metadata.find("needs"); needs != metadata.end())
        for (const char* key : {"folders", "pipes"}) keep(*needs, key, itself);
    Json host = Json::parse(facts, nullptr, false);
    keep(host, "files", [](const Json& one) { return one.value("path", std::string()); });
    if (host.is_object()) facts = host.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<Shortcoming> check_target(const Json& needs, const std::string& facts) {
    std::vector<Shortcoming> out;
    if (auto lines = host_differences(facts); !lines.ok())
        out.push_back({"ghost", "readable facts about its host", lines.error().message()});
    else
        for (const auto& line : *lines) out.push_back({line, "", ""});
    if (!needs.is_object()) return out;
    check_memory(needs, out);
    check_spaces(needs, out);
    for (auto& one : check_needs(needs)) out.push_back(std::move(one));
    return out;
}

std::vector<Shortcoming> check_needs(const Json& needs) {
    std::vector<Shortcoming> out;
    if (!needs.is_object()) return out;
    check_named(needs, out);
    check_descriptors(needs, out);
    check_removed(needs, out);
    check_limits(needs, out);
    return out;
}

std::string describe(const std::vector<Shortcoming>& all) {
    std::string out;
    for (const auto& one : all) {
        if (!out.empty()) out += "; ";
        out += one.what;
        if (!one.needed.empty()) out += fmt::format(": {} needed, {}", one.needed, one.found);
    }
    return out;
}

Status ask_target(Resource& target, const Json& needs, const std::string& facts) {
    LiveLink link(target);
    const Json question{{"needs", needs}, {"facts", facts}};
    GHOST_TRY(link.send_text(LiveMessageType::needs,
                             question.dump(-1, ' ', false, Json::error_handler_t::replace)));
    auto answer = link.receive();
    if (!answer) return answer.error();
    if (answer->type() == LiveMessageType::ready) return {};
    if (answer->type() != LiveMessageType::refused) return answer->damaged();
    return because(Code::refused, answer->payload);
}

Status answer_source(Resource& source) {
    LiveLink link(source);
    for (std::string why;;) {
        auto question = link.expect(LiveMessageType::needs);
        if (!question) return why.empty() ? question.error() : because(Code::refused, why);
        const Json asked = Json::parse(question->payload, nullptr, false);
        if (!asked.is_object()) return question->damaged();
        why = describe(check_target(asked.value("needs", Json::object()),
                                    asked.value("facts", std::string())));
        if (why.empty()) return link.send(LiveMessageType::ready);
        GHOST_TRY(link.send_text(LiveMessageType::refused, why));
    }
}

}  // namespace ghost::core
