// SPDX-License-Identifier: BSD-3-Clause
#include "base/proc.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <sstream>
#include <string_view>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <utility>

#include "base/fd.hpp"

namespace ghost {

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

std::string link_of(const std::string& path) {
    std::error_code ignored;
    return std::filesystem::read_symlink(path, ignored).string();
}

std::vector<pid_t> children_of(pid_t pid) {
    std::vector<pid_t> out;
    const auto folder = fmt::format("/proc/{}/task", pid);
    const Fd tasks(open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    std::array<char, 4096> piece;
    for (const pid_t tid : numbers_in(folder)) {
        // Of each thread, of which there may be thousands.
        const auto name = std::to_string(tid) + "/children";
        const Fd file(openat(tasks.get(), name.c_str(), O_RDONLY | O_CLOEXEC));
        pid_t child = 0;
        for (ssize_t got = 0; file && (got = read(file.get(), piece.data(), piece.size())) > 0;)
            for (const char c : std::string_view(piece.data(), static_cast<size_t>(got)))
                if (c != ' ')
                    child = 10 * child + (c - '0');
                else
                    out.push_back(std::exchange(child, 0));  // one follows each number
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

pid_t parent_of(pid_t pid) {
    const auto fields = stat_fields(pid);
    return fields.size() > 1 ? static_cast<pid_t>(std::atol(fields[1].c_str())) : 0;
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

// The kernel writes a newline in a path as \012 there.
std::string plain(const std::string& path) {
    std::string out;
    for (size_t at = 0; at < path.size(); at++) {
        const bool newline = path.compare(at, 4, "\\012") == 0;
        out += newline ? '\n' : path[at];
        if (newline) at += 3;
    }
    return out;
}

// "7f00-7f20 rw-s 00000000 fd:01 12  /path", of a file.
std::optional<FileMapping> file_mapping(pid_t pid, const std::string& line) {
    uint64_t end = 0;
    char access[5] = {};
    unsigned major = 0, minor = 0;
    FileMapping out;
    int name = 0;
    const int fields = std::sscanf(line.c_str(), "%lx-%lx %4s %lx %x:%x %lu %n", &out.start, &end,
                                   access, &out.offset, &major, &minor, &out.inode, &name);
    if (fields != 7 || name == 0 || line[static_cast<size_t>(name)] != '/') return std::nullopt;
    out.name = plain(line.substr(static_cast<size_t>(name)));
    out.link = fmt::format("/proc/{}/map_files/{:x}-{:x}", pid, out.start, end);
    out.bytes = end - out.start;
    out.device = makedev(major, minor);
    out.is_private = access[3] == 'p';
    out.is_writable = access[1] == 'w';
    return out;
}

}  // namespace

std::string FileMapping::file_id() const {
    return fmt::format("{:02x}:{:02x}-{:x}", major(device), minor(device), inode);
}

bool FileMapping::is_shared_memory() const {
    const bool other = name.starts_with("/memfd:kernet ") || name.starts_with("/SYSV") ||
                       name.starts_with("/dev/zero ");
    if (is_private || inode == 0 || other) return false;
    return name.starts_with("/dev/shm/") || is_removed();
}

std::vector<FileMapping> file_mappings_of(pid_t pid) {
    std::vector<FileMapping> out;
    std::ifstream in(fmt::format("/proc/{}/maps", pid));
    for (std::string line; std::getline(in, line);)
        if (auto one = file_mapping(pid, line)) out.push_back(std::move(*one));
    return out;
}

std::string boot_id() {
    std::string out;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> out;
    return out;
}

namespace {

constexpr int most_ancestors = 64;  // a pid that is used again meanwhile must not make a circle

bool descends_from(pid_t pid, pid_t ancestor) {
    for (int i = 0; i < most_ancestors && pid > 1; i++) {
        if (pid == ancestor) return true;
        pid = parent_of(pid);
    }
    return false;
}

pid_t find_inner(pid_t pid, pid_t inner) {
    const auto status = read_status(fmt::format("/proc/{}", pid));
    if (!status) return 0;
    if (status->numbers.back() == inner) return pid;
    for (const pid_t child : children_of(pid))
        if (const pid_t found = find_inner(child, inner); found != 0) return found;
    return 0;
}

}  // namespace

Halt halt_of(pid_t pid, pid_t ours) {
    const auto status = pid > 0 ? read_status(fmt::format("/proc/{}", pid)) : std::nullopt;
    if (!status) return {};
    const bool stopped = status->state == 'T' || status->state == 't';
    if (status->tracer == 0) return stopped ? Halt{pid, true} : Halt{};
    if (ours != 0 && descends_from(status->tracer, ours)) return {};
    const auto tracer = read_status(fmt::format("/proc/{}", status->tracer));
    return {pid, stopped, status->tracer, tracer ? tracer->name : "a process"};
}

Halt halt_of_inner(pid_t root, pid_t inner, pid_t ours) {
    const auto children = inner == 0 ? children_of(root) : std::vector<pid_t>();
    return halt_of(children.empty() ? find_inner(root, inner) : children.front(), ours);
}

}  // namespace ghost
