// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/events/files.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/own_file.hpp"
#include "base/utc.hpp"

namespace ghost::plugin {
namespace {

namespace fs = std::filesystem;

constexpr const char* suffix = ".events";
constexpr size_t most_text = 32 << 20;  // bytes of a log that are read
constexpr size_t began_size = std::string_view("20250131T235959Z").size();

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
}

// "20250131T235959Z"
std::string compact(const std::string& utc) {
    std::string out;
    for (const char c : utc.substr(0, utc.find('.')))
        if (c != '-' && c != ':') out += c;
    return out + "Z";
}

Status make_folders(const std::string& folder) {
    const fs::path above = fs::path(folder).parent_path();
    std::error_code failed;
    if (!above.empty() && !fs::is_directory(above, failed)) GHOST_TRY(make_folders(above));
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
        return sys_error("make the folder of event logs", folder);
    return {};
}

// Appends what is in the file, as long as it is not too much.
Status read_into(const Fd& fd, const std::string& path, EventsText& out) {
    char block[65536];
    for (;;) {
        const ssize_t n = ::read(fd.get(), block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("read", path);
        if (n == 0) return {};
        const size_t room = most_text - out.text.size(), got = static_cast<size_t>(n);
        out.text.append(block, std::min(got, room));
        if (got <= room) continue;
        out.cut = true;
        return {};
    }
}

bool is_locked(const Fd& fd) {
    return ::flock(fd.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

// A number of the name, up to its end.
std::optional<pid_t> number(std::string_view text) {
    pid_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size() && value > 0;
    return whole ? std::optional(value) : std::nullopt;
}

}  // namespace

Result<std::string> events_folder(const std::optional<std::string>& setting) {
    if (setting == "none") return std::string();
    if (setting && !setting->empty() && setting != "auto") {
        std::error_code failed;
        const auto whole = fs::absolute(*setting, failed).lexically_normal();
        return failed ? *setting : whole.string();
    }
    if (const std::string state = variable("XDG_STATE_HOME"); state.starts_with('/'))
        return state + "/ghost";
    const std::string home = variable("HOME");
    if (home.empty())
        return make_error(Code::not_found, "find the user's folder for event logs", "$HOME",
                          "it is not set");
    GHOST_TRY(open_own_folder(home));
    return home + "/.local/state/ghost";
}

std::string began_now() {
    return compact(utc_text(realtime_us()));
}

std::string new_events_file(const std::string& folder, const std::string& job, pid_t pid) {
    return fmt::format("{}/{}-{}-{}{}", folder, began_now(), job, pid, suffix);
}

std::optional<EventsFile> parse_events_file(const std::string& path) {
    std::string name = fs::path(path).filename();
    if (!name.ends_with(suffix)) return std::nullopt;
    name.resize(name.size() - std::string_view(suffix).size());
    const size_t first = name.find('-'), last = name.rfind('-');
    if (first != began_size || last == first || last == std::string::npos) return std::nullopt;
    EventsFile out{path, name.substr(0, first), name.substr(first + 1, last - first - 1), 0};
    const auto pid = number(std::string_view(name).substr(last + 1));
    if (out.job.empty() || !pid) return std::nullopt;
    out.pid = *pid;
    return out;
}

std::string older_part(const std::string& path) {
    return path + ".old";
}

Result<Fd> open_events_file(const std::string& path) {
    GHOST_TRY(make_folders(fs::path(path).parent_path()));
    auto fd = open_own_file(path, O_WRONLY | O_CREAT | O_APPEND);
    // Where there are no locks the log says by its last line whether the job runs.
    if (fd.ok()) (void)::flock(fd->get(), LOCK_EX | LOCK_NB);
    return fd;
}

void remove_old_events(const std::string& folder, size_t keep) {
    const auto all = list_events_files(folder);
    for (size_t i = keep; all.ok() && i < all->size(); ++i) {
        const std::string& path = (*all)[i].path;
        const auto fd = open_own_file(path);
        if (!fd.ok() || ::flock(fd->get(), LOCK_EX | LOCK_NB) != 0) continue;
        ::unlink(path.c_str());
        ::unlink(older_part(path).c_str());
    }
}

Result<std::vector<EventsFile>> list_events_files(const std::string& folder) {
    GHOST_TRY(open_own_folder(folder));
    std::vector<EventsFile> out;
    std::error_code failed;
    for (fs::directory_iterator it(folder, failed), none; !failed && it != none;
         it.increment(failed))
        if (auto file = parse_events_file(it->path())) out.push_back(std::move(*file));
    if (failed) return sys_error_of(failed.value(), "read the folder of event logs", folder);
    std::ranges::sort(out, std::greater(), &EventsFile::path);
    return out;
}

Result<EventsText> read_own_log(const std::string& path) {
    EventsText out;
    if (const auto older = open_own_file(older_part(path)); older.ok())
        GHOST_TRY(read_into(*older, path, out));
    const auto fd = open_own_file(path);
    if (!fd.ok()) return fd.error();
    GHOST_TRY(read_into(*fd, path, out));
    out.running = is_locked(*fd);
    return out;
}

Result<EventsText> read_any_log(const std::string& path) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!fd) return sys_error("open", path, errno == ENOENT ? Code::not_found : Code::io);
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return sys_error("look at", path);
    if (!S_ISREG(info.st_mode))
        return make_error(Code::invalid, "read the event log", path, "it is no regular file");
    EventsText out;
    GHOST_TRY(read_into(fd, path, out));
    return out;
}

}  // namespace ghost::plugin
