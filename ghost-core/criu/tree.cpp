// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/tree.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <poll.h>
#include <sstream>
#include <string_view>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "ghost-core/criu/placement.hpp"
#include "ghost-core/criu/proc.hpp"

namespace ghost::core {
namespace {

constexpr int64_t criu_end_us = 2000000;

}  // namespace

std::vector<pid_t> numbers_in(const std::string& folder) {
    std::vector<pid_t> out;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(folder.c_str()), closedir);
    while (dir) {
        const auto* entry = readdir(dir.get());
        if (entry == nullptr) break;
        const std::string_view name = entry->d_name;
        pid_t number = 0;
        const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
        if (error == std::errc{} && end == name.data() + name.size()) out.push_back(number);
    }
    return out;
}

std::vector<pid_t> children_of(pid_t pid) {
    std::vector<pid_t> out;
    const auto tasks = fmt::format("/proc/{}/task", pid);
    for (const pid_t tid : numbers_in(tasks)) {
        std::ifstream in(fmt::format("{}/{}/children", tasks, tid));
        for (pid_t child = 0; in >> child;) out.push_back(child);
    }
    return out;
}

std::vector<std::string> stat_fields(pid_t pid) {
    std::ifstream in(fmt::format("/proc/{}/stat", pid));
    std::string text;
    std::getline(in, text, '\0');
    const auto close = text.rfind(')');
    std::istringstream words(close == std::string::npos ? "" : text.substr(close + 1));
    std::vector<std::string> out;
    for (std::string word; words >> word;) out.push_back(word);
    return out;
}

std::string start_of(pid_t pid) {
    const auto fields = stat_fields(pid);
    return fields.size() > 19 ? fields[19] : "";
}

std::optional<TaskStatus> read_status(const std::string& folder) {
    const Fd file(open((folder + "/status").c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 4096> buffer;
    const auto got = file ? read(file.get(), buffer.data(), buffer.size()) : 0;
    if (got <= 0) return std::nullopt;
    const std::string_view text(buffer.data(), static_cast<size_t>(got));
    // The value behind a key at the begin of a line, which no name can contain.
    const auto value = [text](std::string_view key) -> std::string_view {
        auto at = text.starts_with(key) ? 0 : text.find(fmt::format("\n{}", key));
        if (at == std::string_view::npos) return {};
        at = text.find_first_not_of("\t ", at + key.size() + (at == 0 ? 0 : 1));
        return text.substr(at, text.find('\n', at) - at);
    };
    TaskStatus out;
    out.name = value("Name:");
    if (const auto state = value("State:"); !state.empty()) out.state = state.front();
    const auto tracer = value("TracerPid:");
    std::from_chars(tracer.data(), tracer.data() + tracer.size(), out.tracer);
    for (auto rest = value("NSpid:"); !rest.empty();) {
        pid_t pid = 0;
        const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), pid);
        if (error != std::errc{}) break;
        out.numbers.push_back(pid);
        rest.remove_prefix(static_cast<size_t>(end - rest.data()));
        rest.remove_prefix(std::min(rest.find_first_not_of('\t'), rest.size()));
    }
    if (out.numbers.empty()) return std::nullopt;
    return out;
}

namespace {

void collect(pid_t pid, std::vector<Task>& out) {
    const auto status = read_status(fmt::format("/proc/{}", pid));
    if (!status) return;
    out.push_back({pid, status->numbers.back(), status->name, status->state});
    for (const pid_t child : children_of(pid)) collect(child, out);
}

}  // namespace

Result<std::vector<Task>> list_tree(pid_t root) {
    std::vector<Task> out;
    if (root > 0) collect(root, out);
    if (out.empty()) return make_error(Code::not_found, "find process", std::to_string(root));
    return out;
}

Status wait_untraced(pid_t root, int64_t limit_us) {
    for (const int64_t limit = monotonic_us() + limit_us;;) {
        auto tasks = list_tree(root);
        if (!tasks) return tasks.error();
        const bool held = std::any_of(tasks->begin(), tasks->end(), [](const Task& task) {
            const auto status = read_status(fmt::format("/proc/{}", task.pid));
            return status && status->tracer != 0;
        });
        if (!held) return {};
        if (monotonic_us() > limit)
            return make_error(Code::timeout, "wait for the end of criu", std::to_string(root));
        poll(nullptr, 0, 1);
    }
}

void calm_tree(pid_t root) {
    if (auto tasks = list_tree(root)) give_back(root, *tasks);
}

Status resume_tree(pid_t root) {
    if (auto free = wait_untraced(root, criu_end_us); !free.ok())
        log::warning("{}", free.error().message());
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    return resume_tasks(root, *tasks);
}

Status resume_tasks(pid_t root, const std::vector<Task>& tasks) {
    give_back(root, tasks);
    return continue_tasks(tasks);
}

Status continue_tasks(const std::vector<Task>& tasks) {
    // Children first: the init must not see a child stopped for long after it runs itself.
    for (auto task = tasks.rbegin(); task != tasks.rend(); ++task)
        if (kill(task->pid, SIGCONT) != 0 && errno != ESRCH)
            return sys_error("continue process", std::to_string(task->pid));
    return {};
}

Result<ThreadId> find_thread(pid_t root, pid_t inner_tid) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    for (const auto& task : *tasks) {
        const auto folder = fmt::format("/proc/{}/task", task.pid);
        for (const pid_t tid : numbers_in(folder)) {
            const auto status = read_status(fmt::format("{}/{}", folder, tid));
            if (status && status->numbers.back() == inner_tid) return ThreadId{task.pid, tid};
        }
    }
    return make_error(Code::not_found, fmt::format("find thread {} of tree", inner_tid),
                      std::to_string(root));
}

}  // namespace ghost::core
