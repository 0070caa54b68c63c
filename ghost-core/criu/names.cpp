// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/names.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <csignal>
#include <fmt/format.h>
#include <optional>
#include <sys/statfs.h>

#include "ghost-core/criu/nested.hpp"
#include "ghost-core/format/files.hpp"

namespace ghost::core {
namespace {

constexpr std::string_view below_proc = "/proc/";
constexpr std::string_view of_thread = "task/";
constexpr char own_number = '\1';

// A number that is an element of a path by itself, or with " (deleted)" behind it.
std::optional<pid_t> number_at(std::string_view path, size_t at) {
    pid_t number = 0;
    const auto* const end = path.data() + path.size();
    const auto [rest, error] =
        std::from_chars(path.data() + std::min(at, path.size()), end, number);
    if (error != std::errc{} || (rest != end && *rest != '/' && *rest != ' ')) return {};
    return number;
}

// The processes that a path below /proc names.
struct Below {
    pid_t process = 0;
    pid_t thread = 0;  // 0: none is named
    size_t rest = 0;   // of the path, behind all that
};

std::optional<Below> named_below(std::string_view path) {
    if (!path.starts_with(below_proc)) return {};
    const auto process = number_at(path, below_proc.size());
    if (!process) return {};
    Below out;
    out.process = *process;
    const auto end_of = [path](size_t at) {
        return std::min(path.find_first_of("/ ", at), path.size());
    };
    out.rest = end_of(below_proc.size());
    const auto threads = out.rest + 1;
    if (threads > path.size() || !path.substr(threads).starts_with(of_thread)) return out;
    const auto thread = number_at(path, threads + of_thread.size());
    if (!thread) return out;
    out.thread = *thread;
    out.rest = end_of(threads + of_thread.size());
    return out;
}

// `number` as the tree's /proc has it.
const Task* task_of(const std::vector<Task>& tree, bool own_proc, pid_t number) {
    const auto found = std::ranges::find(tree, number, own_proc ? &Task::inner : &Task::pid);
    return found == tree.end() ? nullptr : &*found;
}

bool is_own_proc(const std::vector<Task>& tree) {
    return !tree.empty() && has_own_proc(tree.front().pid);
}

// Of a process, in a /proc that the tree does not see: handed in by descriptor.
bool is_of_other_proc(const std::vector<Task>& tree, const std::string& shown,
                      const struct stat& info) {
    struct stat its {};
    return named_below(shown) && is_own_proc(tree) &&
           stat(fmt::format("/proc/{}/root/proc", tree.front().pid).c_str(), &its) == 0 &&
           its.st_dev != info.st_dev;
}

}  // namespace

Refusal why_not_below_proc(const std::vector<Task>& tree, const std::string& path) {
    const auto below = named_below(path);
    // there is an init where it goes as well
    if (!below || below->process == 1) return {};
    const bool own = is_own_proc(tree);
    if (task_of(tree, own, below->process) == nullptr)
        return {
            !own && kill(below->process, 0) == 0 ? Reason::outer_process : Reason::ended_process,
            below->process};
    if (below->thread != 0 && below->thread != below->process)
        return {Reason::other_thread, below->process};
    return {};
}

Refusal why_no_file(const std::string& link) {
    constexpr __fsword_t message_queues = 0x19800202, secret_memory = 0x5345434d;  // ipc/, mm/
    struct statfs of {};
    if (statfs(link.c_str(), &of) != 0) return {};
    if (of.f_type == message_queues) return Reason::message_queue;
    if (of.f_type == secret_memory) return Reason::secret_memory;
    return {};
}

Refusal why_not_by_name(const std::vector<Task>& tree, const std::string& link,
                        const std::string& shown, const struct stat& info) {
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return {};
    if (is_of_other_proc(tree, shown, info)) return Reason::other_proc;
    if (shown.starts_with(below_proc)) return why_not_below_proc(tree, shown);
    if (auto why = why_no_file(link)) return why;
    if (info.st_nlink == 0 || !shown.starts_with("/") || !S_ISREG(info.st_mode) ||
        !name_of(link, shown).empty())
        return {};
    return Reason::renamed;
}

std::string inner_path(const std::vector<Task>& tree, const std::string& path) {
    const auto below = named_below(path);
    if (!below || is_own_proc(tree)) return path;
    const auto* const task = task_of(tree, false, below->process);
    if (task == nullptr) return path;
    const auto number = own_number + std::to_string(task->inner);
    const auto thread = below->thread == 0 ? "" : fmt::format("/{}{}", of_thread, number);
    return fmt::format("{}{}{}{}", below_proc, number, thread, path.substr(below->rest));
}

}  // namespace ghost::core
