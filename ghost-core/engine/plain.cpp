// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/engine/plain.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <sstream>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/addresses.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/proc.hpp"
#include "base/schema_json.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/criu/nested.hpp"
#include "ghost-core/criu/names.hpp"
#include "ghost-core/criu/preflight.hpp"

namespace ghost::core {
namespace {

std::string text_of(const std::string& path) {
    auto text = read_file(path);
    return text ? std::move(*text) : std::string();
}

pid_t parent_of(pid_t pid) {
    const auto fields = stat_fields(pid);
    return fields.size() > 1 ? std::atoi(fields[1].c_str()) : 0;
}

// Which file a process runs, nobody is told who may not look into it (ptrace(2)): then by its name.
bool is_init_of_ours(pid_t pid) {
    const auto exe = link_of(fmt::format("/proc/{}/exe", pid));
    const auto name = exe.empty() ? text_of(fmt::format("/proc/{}/comm", pid)) : exe;
    return name.substr(name.rfind('/') + 1).starts_with("ghost-init");
}

bool is_of_kernel(pid_t pid) {
    char none[2];
    return readlink(fmt::format("/proc/{}/exe", pid).c_str(), none, sizeof none) < 0 &&
           errno == ENOENT;
}

// How many PID name spaces a process is in, as far as /proc here shows them.
size_t depth_of(pid_t pid) {
    const auto status = read_status(fmt::format("/proc/{}", pid));
    return status ? status->numbers.size() : 0;
}

pid_t inner_of(pid_t pid) {
    const auto status = read_status(fmt::format("/proc/{}", pid));
    return status ? status->numbers.back() : 0;
}

// Pids mean something only within this.
std::string pid_space() {
    return link_of("/proc/self/ns/pid");
}

std::string command_of(pid_t pid) {
    auto text = text_of(fmt::format("/proc/{}/cmdline", pid));
    while (!text.empty() && text.back() == '\0') text.pop_back();
    std::replace(text.begin(), text.end(), '\0', ' ');
    return text.substr(0, 4096);
}

// Every open end of a pipe in the tree, and where.
struct PipeEnds {
    bool reads = false, writes = false;
    std::string first;  // "process 77 (sort): descriptor 5"
};

std::map<std::string, PipeEnds> pipes_of(const std::vector<Task>& tasks) {
    std::map<std::string, PipeEnds> out;
    for (const auto& task : tasks)
        for (const int fd : numbers_in(fmt::format("/proc/{}/fd", task.pid))) {
            const auto target = link_of(fmt::format("/proc/{}/fd/{}", task.pid, fd));
            if (!target.starts_with("pipe:[")) continue;
            const auto info = text_of(fmt::format("/proc/{}/fdinfo/{}", task.pid, fd));
            const auto at = info.find("flags:");
            const auto flags =
                at == std::string::npos ? 0 : std::strtol(info.c_str() + at + 6, nullptr, 8);
            auto& pipe = out[target];
            const auto access = flags & O_ACCMODE;
            pipe.reads |= access != O_WRONLY;
            pipe.writes |= access != O_RDONLY;
            if (pipe.first.empty())
                pipe.first =
                    fmt::format("process {} ({}): descriptor {}", task.inner, task.name, fd);
        }
    return out;
}

void judge_pipes(const std::vector<Task>& tasks, const std::vector<std::string>& keys,
                 std::vector<std::string>& out) {
    for (const auto& [key, ends] : pipes_of(tasks))
        if (!(ends.reads && ends.writes) && std::find(keys.begin(), keys.end(), key) == keys.end())
            out.push_back(Refusal(Reason::outer_end).of(ends.first + " " + key));
}

// Files that were opened in another mount name space have no path criu could give them.
void judge_mounts(const std::vector<Task>& tasks, std::vector<std::string>& out) {
    for (const auto& task : tasks)
        for (const int fd : numbers_in(fmt::format("/proc/{}/fd", task.pid))) {
            const auto path = fmt::format("/proc/{}/fd/{}", task.pid, fd);
            struct stat info {};
            const auto target = link_of(path);
            if (!target.starts_with("/") || target.starts_with("/memfd:") ||
                stat(path.c_str(), &info) != 0 || S_ISSOCK(info.st_mode) ||
                (S_ISCHR(info.st_mode) && major(info.st_rdev) != 1) || why_no_file(path) ||
                is_mounted_for(task.pid, task.pid, fd) || is_mounted_for(getpid(), task.pid, fd))
                continue;
            out.push_back(
                Refusal(Reason::other_mounts)
                    .of("", task.inner, task.name, fmt::format("descriptor {} {}", fd, target)));
        }
}

std::string named(const Task& task) {
    return fmt::format("process {} ({})", task.inner, task.name);
}

// criu works from within the name spaces a tree is in; all but those that `ghost run` makes have to
// be those of the caller.
bool is_of_run(const std::string& space, const Task& task, const PlainTree& tree) {
    return space == "mnt" && tree.nested && has_own_proc(tree.root) &&
           link_of(fmt::format("/proc/{}/ns/mnt", task.pid)) ==
               link_of(fmt::format("/proc/{}/ns/mnt", tree.root));
}

void judge_spaces(const std::vector<Task>& tasks, const PlainTree& tree,
                  std::vector<std::string>& out) {
    for (const auto* space : {"mnt", "net", "uts", "user"}) {
        const auto ours = link_of(fmt::format("/proc/self/ns/{}", space));
        for (const auto& task : tasks) {
            const auto its = link_of(fmt::format("/proc/{}/ns/{}", task.pid, space));
            if (its.empty() || its == ours || is_of_run(space, task, tree)) continue;
            out.push_back(Refusal(Reason::outer_space, space).of(named(task)));
            break;
        }
    }
    for (const auto& task : tasks)
        if (depth_of(task.pid) != depth_of(tree.root))
            out.push_back(Refusal(Reason::inner_space).of(named(task)));
}

// criu asks for limits by prlimit(2), which this takes for processes of other users.
bool is_ours(unsigned real, unsigned effective, unsigned saved, unsigned ours) {
    return real == ours && effective == ours && saved == ours;
}

void judge_users(const std::vector<Task>& tasks, std::vector<std::string>& out) {
    if (may_raise_limits()) return;
    for (const auto& task : tasks) {
        std::ifstream in(fmt::format("/proc/{}/status", task.pid));
        for (std::string line; std::getline(in, line);) {
            if (!line.starts_with("Uid:") && !line.starts_with("Gid:")) continue;
            std::istringstream words(line.substr(4));
            unsigned real = 0, effective = 0, saved = 0;
            words >> real >> effective >> saved;
            const unsigned ours = line.starts_with("Uid:") ? geteuid() : getegid();
            if (is_ours(real, effective, saved, ours)) continue;
            out.push_back(Refusal(Reason::other_user).of(named(task)));
            break;
        }
    }
}

Result<PlainTree> describe(pid_t root, bool nested) {
    PlainTree out;
    out.root = root;
    out.nested = nested;
    out.program = nested ? program_of(root) : root;
    if (out.program == 0) out.program = root;
    out.inner = inner_of(out.program);
    return out;
}

}  // namespace

Result<PlainTree> find_plain(pid_t pid) {
    const auto name = std::to_string(pid);
    const auto status = pid > 0 ? read_status(fmt::format("/proc/{}", pid)) : std::nullopt;
    if (!status) return make_error(Code::not_found, "find process", name);
    if (status->state == 'Z' || status->state == 'X')
        return make_error(Code::not_found, "find process", name, "it has ended");
    if (pid == 1 || pid == getpid() || is_of_kernel(pid))
        return make_error(Code::refused, "take this process out of its system", name);
    const size_t here = depth_of(getpid());
    if (depth_of(pid) == here) {
        // `ghost run` itself, as the shell's $! names it: its program is meant.
        const auto children = children_of(pid);
        for (const pid_t child : children)
            if (depth_of(child) == here + 1 && is_init_of_ours(child)) return describe(child, true);
        return describe(pid, false);
    }
    for (pid_t at = pid; at > 1; at = parent_of(at))
        if (depth_of(at) == here + 1 && inner_of(at) == 1) {
            if (is_init_of_ours(at) || at == pid) return describe(at, true);
            return make_error(
                Code::refused,
                "take a process out of a PID name space that `ghost run` has not made", {},
                fmt::format("a whole name space is named by its first process, not by {}", name));
        }
    return make_error(Code::refused, "find the name space's first process of", name);
}

StdioEnd stdio_end(pid_t pid, int number) {
    const auto path = fmt::format("/proc/{}/fd/{}", pid, number);
    const auto target = link_of(path);
    struct stat info {};
    if (target.empty() || stat(path.c_str(), &info) != 0) return {"closed", ""};
    if (target.starts_with("pipe:[")) return {"pipe", target};
    if (S_ISSOCK(info.st_mode)) return {"socket", fmt::format("unix[{}]", info.st_ino)};
    const auto device = major(info.st_rdev);
    if (S_ISCHR(info.st_mode) && ((device >= 136 && device <= 143) || device == 4))
        return {"tty", fmt::format("tty[{:x}:{:x}]", info.st_rdev, info.st_dev)};
    if (S_ISCHR(info.st_mode) && info.st_rdev == makedev(1, 3)) return {"null", ""};
    return {"file", ""};
}

std::array<StdioEnd, 3> stdio_of(const PlainTree& tree) {
    std::array<StdioEnd, 3> out;
    auto tasks = list_tree(tree.root);
    const auto pipes = tasks ? pipes_of(*tasks) : std::map<std::string, PipeEnds>();
    for (int i = 0; i < 3; i++) {
        auto& end = out[static_cast<size_t>(i)];
        end = stdio_end(tree.program, i);
        const auto pipe = pipes.find(end.key);
        if (pipe != pipes.end() && pipe->second.reads && pipe->second.writes) end.key.clear();
    }
    return out;
}

Result<std::vector<std::string>> why_not_exportable(const PlainTree& tree) {
    auto tasks = list_tree(tree.root);
    if (!tasks) return tasks.error();
    std::vector<std::string> keys;
    for (const auto& end : stdio_of(tree))
        if (!end.key.empty()) keys.push_back(end.key);
    auto out = check_movable(tree.root, fmt::format("tree of {}", tree.program), keys);
    if (!out) return out.error();
    judge_pipes(*tasks, keys, *out);
    judge_mounts(*tasks, *out);
    judge_spaces(*tasks, tree, *out);
    judge_users(*tasks, *out);
    return out;
}

bool is_mounted_for(pid_t viewer, pid_t pid, int number) {
    std::ifstream info(fmt::format("/proc/{}/fdinfo/{}", pid, number));
    std::string word, id;
    while (info >> word)
        if (word == "mnt_id:") info >> id;
    std::ifstream mounts(fmt::format("/proc/{}/mountinfo", viewer));
    for (std::string line; std::getline(mounts, line);)
        if (line.starts_with(id + " ")) return true;
    return id.empty();
}

Result<ExportRequest> plain_export(const PlainTree& tree, const CriuSettings& criu, Ghosts ghosts) {
    ExportRequest out;
    out.ghosts = ghosts;
    out.root = tree.root;
    out.nested = tree.nested;
    out.criu = criu;
    const auto stdio = stdio_of(tree);
    for (const auto& end : stdio)
        if (!end.key.empty()) out.externals.push_back(end.key);
    auto facts = facts_of(tree.root, out.ghosts);
    if (!facts) return facts.error();
    const PlainProcess process{.command = command_of(tree.program),
                               .pid = tree.program,
                               .inner = tree.inner,
                               .nested = tree.nested,
                               .stdio = {stdio.begin(), stdio.end()},
                               .original = {.host = host_name(),
                                            .boot = boot_id(),
                                            .space = pid_space(),
                                            .pid = tree.program,
                                            .start = start_of(tree.program)}};
    out.metadata = schema::to_json(GhostMetadata{process, facts->needs});
    out.facts = std::move(*facts);
    return out;
}

pid_t still_running(const OriginalProcess& original) {
    if (original.boot != boot_id() || original.space != pid_space()) return 0;
    if (original.pid <= 0 || original.start.empty() || start_of(original.pid) != original.start)
        return 0;
    const auto status = read_status(fmt::format("/proc/{}", original.pid));
    return status && status->state != 'Z' && status->state != 'X' ? original.pid : 0;
}

std::vector<std::pair<int, StdioEnd>> outside_stdio(const PlainProcess& process) {
    std::vector<std::pair<int, StdioEnd>> out;
    for (size_t i = 0; i < process.stdio.size() && i < 3; i++)
        if (!process.stdio[i].key.empty()) out.emplace_back(static_cast<int>(i), process.stdio[i]);
    return out;
}

void end_plain(const PlainTree& tree) {
    auto tasks = list_tree(tree.root);
    calm_tree(tree.root);
    if (tasks && !tree.nested)
        for (const auto& task : *tasks) kill(task.pid, SIGKILL);
    kill(tree.root, SIGKILL);
}

void mark_clone(pid_t root) {
    auto tasks = list_tree(root);
    if (!tasks) return;
    const std::string before = std::string(clone_variable) + "=0";
    for (const auto& task : *tasks) {
        // env_start and env_end, proc(5); what getenv(3) gives points in there.
        const auto fields = stat_fields(task.pid);
        if (fields.size() < 49) continue;
        const auto start = std::strtoull(fields[47].c_str(), nullptr, 10);
        const auto end = std::strtoull(fields[48].c_str(), nullptr, 10);
        if (start == 0 || end <= start || end - start > (4U << 20)) continue;
        const Fd memory(open(fmt::format("/proc/{}/mem", task.pid).c_str(), O_RDWR | O_CLOEXEC));
        std::string text(end - start, '\0');
        if (!memory || pread(memory.get(), text.data(), text.size(), static_cast<off_t>(start)) !=
                           static_cast<ssize_t>(text.size()))
            continue;
        auto at = text.starts_with(before) ? 0 : text.find('\0' + before + '\0');
        if (at == std::string::npos) continue;
        if (at != 0) at++;
        const auto digit = static_cast<off_t>(start + at + before.size() - 1);
        if (pwrite(memory.get(), "1", 1, digit) != 1) continue;
    }
}

}  // namespace ghost::core
