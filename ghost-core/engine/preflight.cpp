// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/preflight.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <iterator>
#include <optional>
#include <set>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/json_text.hpp"
#include "base/schema_json.hpp"
#include "base/user_space.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/criu/preflight.hpp"
#include "ghost-core/engine/live_link.hpp"
#include "ghost-core/engine/lock_handover.hpp"
#include "ghost-core/engine/node_memory.hpp"

namespace ghost::core {
namespace {

using Json = nlohmann::json;

// What a source asks its target.
struct Question {
    std::optional<Needs> needs;
    std::string facts;
    bool live = false;
    static const schema::Record table;
};
constexpr schema::Field question_fields[] = {
    schema::field<&Question::needs>("needs", "of the tree"),
    schema::field<&Question::facts>("facts", "of its host, as text").or_default(),
    schema::field<&Question::live>("live", "it runs while it comes").or_default(),
};
constinit const schema::Record Question::table =
    schema::record<Question>("question", "whether a tree can be here", question_fields);

std::string amount(uint64_t bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

void check_memory(const Needs& needs, std::vector<Shortcoming>& out) {
    const auto wanted = needs.memory, available = memory_available();
    if (available < wanted)
        out.push_back({"memory", amount(wanted), amount(available) + " free", ""});
}

void check_named(const std::vector<std::string>& names, const char* what, mode_t kind,
                 std::vector<Shortcoming>& out) {
    for (const auto& path : names) {
        struct stat info {};
        if (stat(path.c_str(), &info) != 0 || (info.st_mode & S_IFMT) != kind)
            out.push_back({fmt::format("{} {}: is missing", what, path), "", "", path});
    }
}

void check_named(const std::vector<std::string>& folders, const std::vector<std::string>& pipes,
                 std::vector<Shortcoming>& out) {
    check_named(folders, "folder", S_IFDIR, out);
    check_named(pipes, "named pipe", S_IFIFO, out);
}

void check_descriptors(const Needs& needs, std::vector<Shortcoming>& out) {
    if (const auto why = why_no_descriptor(needs.descriptors))
        out.push_back(
            {fmt::format("descriptor {}: {}", needs.descriptors, why.text()), "", "", ""});
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

void check_removed(const Needs& needs, std::vector<Shortcoming>& out) {
    for (const auto& [folder, wanted] : needs.removed) {
        const auto available = free_in(folder);
        if (available && *available < wanted)
            out.push_back({fmt::format("space in {} for files that have been removed", folder),
                           amount(wanted), amount(*available) + " free", ""});
    }
}

// Names as in /proc/PID/limits.
void check_limits(const Needs& needs, std::vector<Shortcoming>& out) {
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
    const auto text = [](uint64_t value) {
        return value == ~uint64_t{0} ? std::string("unlimited") : std::to_string(value);
    };
    for (const auto& [name, number] : known) {
        rlimit here{};
        const auto limit = needs.limits.find(name);
        if (limit == needs.limits.end() || getrlimit(number, &here) != 0) continue;
        const auto wanted = limit->second;
        if (wanted > here.rlim_max)
            out.push_back(
                {fmt::format("hard limit of {}", name), text(wanted), text(here.rlim_max), ""});
    }
}

// Only root can give a process other groups (setgroups(2)).
void check_groups(const Needs& needs, std::vector<Shortcoming>& out) {
    const auto& wanted = needs.groups;
    const auto here = user_groups();
    if (wanted == here || wanted.empty() || geteuid() == 0) return;
    out.push_back({"supplementary groups", fmt::format("{}", fmt::join(wanted, ",")),
                   here.empty() ? "none" : fmt::format("{}", fmt::join(here, ",")), ""});
}

void check_spaces(const Needs& needs, std::vector<Shortcoming>& out) {
    for (const auto& name : needs.spaces) {
        const auto path = "/proc/self/ns/" + name;
        if (access(path.c_str(), F_OK) != 0)
            out.push_back({name + " name spaces", "the kernel's support", "none", ""});
    }
    if (!has_user_space())
        out.push_back(
            {"privilege", "root or a user name space", fmt::format("user {}", geteuid()), ""});
}

}  // namespace

std::vector<Shortcoming> check_target(const std::optional<Needs>& needs, const std::string& facts) {
    std::vector<Shortcoming> out;
    if (auto all = named_differences(facts); !all.ok())
        out.push_back({"ghost", "readable facts about its host", all.error().message(), ""});
    else
        for (auto& one : *all) out.push_back({std::move(one.line), "", "", std::move(one.path)});
    if (!needs) return out;
    check_memory(*needs, out);
    check_spaces(*needs, out);
    for (const auto& path : unseen_locks(needs->locks))
        out.push_back({fmt::format("{}: {}", path, TreeLocks::not_seen), "", "", path});
    std::ranges::move(check_needs(needs), std::back_inserter(out));
    return out;
}

std::vector<Shortcoming> check_names(const NeedsAtStop& changed) {
    std::vector<Shortcoming> out;
    auto files = Json::array();
    for (const auto& one : changed.files) files.push_back(parse_json(one.text));
    for (auto& one : file_differences(files))
        out.push_back({std::move(one.line), "", "", std::move(one.path)});
    check_named(changed.needs.folders, changed.needs.pipes, out);
    return out;
}

std::vector<Shortcoming> check_needs(const std::optional<Needs>& needs) {
    std::vector<Shortcoming> out;
    if (!needs) return out;
    check_named(needs->folders, needs->pipes, out);
    check_descriptors(*needs, out);
    check_removed(*needs, out);
    check_limits(*needs, out);
    check_groups(*needs, out);
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

Status ask_target(Resource& target, const TreeFacts& facts, bool live) {
    LiveLink link(target);
    const auto question = schema::to_json(Question{facts.needs, facts.host(), live});
    GHOST_TRY(link.send_text(LiveMessageType::needs,
                             question.dump(-1, ' ', false, Json::error_handler_t::replace)));
    auto answer = link.receive();
    if (!answer) return answer.error();
    if (answer->type() == LiveMessageType::ready) return {};
    if (answer->type() != LiveMessageType::refused) return answer->damaged();
    return because(Code::refused, answer->payload);
}

Result<bool> answer_source(Resource& source) {
    LiveLink link(source);
    for (std::string why;;) {
        auto question = link.expect(LiveMessageType::needs);
        if (!question) return why.empty() ? question.error() : because(Code::refused, why);
        const auto asked = schema::decode<Question>(question->payload);
        if (!asked) return question->damaged();
        why = describe(check_target(asked->needs, asked->facts));
        if (why.empty()) {
            GHOST_TRY(link.send(LiveMessageType::ready));
            return asked->live;
        }
        GHOST_TRY(link.send_text(LiveMessageType::refused, why));
    }
}

}  // namespace ghost::core
