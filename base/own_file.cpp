// SPDX-License-Identifier: BSD-3-Clause
#include "base/own_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <linux/magic.h>
#include <mutex>
#include <optional>
#include <poll.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/encoding.hpp"

namespace ghost {
namespace {

constexpr mode_t others_write = S_IWGRP | S_IWOTH;
constexpr const char* writable =
    "others may write to it; `chmod go-w` it if what is in it is yours";

Error open_failed(int why, const char* tried, const std::string& path) {
    return sys_error_of(why, tried, path, why == ENOENT ? Code::not_found : Code::io);
}

Error refuse(const std::string& path, const std::string& why) {
    return make_error(Code::refused, "trust", path, why);
}

std::string foreign(uid_t owner) {
    return fmt::format("it belongs to user {}, this is user {}; remove it or use another", owner,
                       ::geteuid());
}

// What was opened is of the type and only this user's to write.
Status check_own(const Fd& fd, mode_t type, const std::string& path) {
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return sys_error("look at", path);
    if ((info.st_mode & S_IFMT) != type)
        return refuse(path, type == S_IFDIR ? "it is no folder" : "it is no regular file");
    if (info.st_uid != ::geteuid()) return refuse(path, foreign(info.st_uid));
    if ((info.st_mode & others_write) != 0) return refuse(path, writable);
    return {};
}

// Of a link at the end of a path: only this user's or root's is followed.
Status check_link(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return open_failed(errno, "open", path);
    if (!S_ISLNK(info.st_mode) || info.st_uid == ::geteuid() || info.st_uid == 0) return {};
    return refuse(path, "it is a link; " + foreign(info.st_uid));
}

std::string without_slashes(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
}

}  // namespace

Result<Fd> open_own_folder(const std::string& path) {
    // "a/" would be what a link "a" leads to
    const std::string name = without_slashes(path);
    GHOST_TRY(check_link(name));
    Fd fd(::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd && errno == ENOTDIR) return refuse(name, "it is no folder");
    if (!fd) return open_failed(errno, "open folder", name);
    GHOST_TRY(check_own(fd, S_IFDIR, name));
    return fd;
}

Result<Fd> make_own_folder(const std::string& path) {
    const std::string name = without_slashes(path);
    if (::mkdir(name.c_str(), 0700) != 0 && errno != EEXIST) return sys_error("make folder", name);
    return open_own_folder(name);
}

Result<Fd> open_own_file(const std::string& path, int flags) {
    const auto slash = path.rfind('/');
    auto folder = open_own_folder(slash == std::string::npos ? "." : path.substr(0, slash + 1));
    if (!folder) return folder.error();
    const std::string name = path.substr(slash + 1);
    // O_NONBLOCK: a pipe must not keep the caller waiting before it is looked at
    const int safe = (flags & ~O_TRUNC) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    Fd fd(::openat(folder->get(), name.c_str(), safe, 0600));
    if (!fd && errno == ELOOP) return refuse(path, "it is a link");
    if (!fd) return open_failed(errno, "open", path);
    GHOST_TRY(check_own(fd, S_IFREG, path));
    if ((flags & O_TRUNC) != 0 && ::ftruncate(fd.get(), 0) != 0) return sys_error("empty", path);
    return fd;
}

Result<Fd> open_trusted_file(const std::string& path) {
    GHOST_TRY(check_link(path));
    Fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!fd) return open_failed(errno, "open", path);
    struct stat info {};
    struct statfs system {};
    if (::fstat(fd.get(), &info) != 0 || ::fstatfs(fd.get(), &system) != 0)
        return sys_error("look at", path);
    if (info.st_uid != ::geteuid() && info.st_uid != 0) return refuse(path, foreign(info.st_uid));
    // root's files there have what the process wants them to have
    if (system.f_type == PROC_SUPER_MAGIC) return refuse(path, "it is in /proc");
    if (S_ISREG(info.st_mode) && (info.st_mode & others_write) != 0) return refuse(path, writable);
    // As an open() that blocks: a pipe that nobody has opened to write yet would read as ended.
    pollfd writer{fd.get(), POLLIN, 0};
    while (S_ISFIFO(info.st_mode) && ::poll(&writer, 1, -1) < 0)
        if (errno != EINTR) return sys_error("wait for who writes", path);
    const int flags = ::fcntl(fd.get(), F_GETFL);
    if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK) != 0)
        return sys_error("open", path);
    return fd;
}

namespace {

// Two that make one at the same time must agree on which is the older: times of files are those of
// the last tick.
constexpr useconds_t more_than_a_tick = 20'000;

std::optional<int64_t> made_at(const std::string& path) {
    struct statx info {};
    if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BTIME | STATX_TYPE, &info) != 0)
        return std::nullopt;
    return int64_t{info.stx_btime.tv_sec} * 1'000'000'000 + info.stx_btime.tv_nsec;
}

}  // namespace

std::vector<std::string> own_folders(const std::string& prefix) {
    namespace fs = std::filesystem;
    const fs::path wanted(prefix + ".");
    std::vector<std::pair<int64_t, std::string>> found;
    std::error_code failed;
    for (fs::directory_iterator it(wanted.parent_path(), failed), none; !failed && it != none;
         it.increment(failed)) {
        const std::string path = it->path();
        if (!it->path().filename().string().starts_with(wanted.filename().string())) continue;
        const auto time = made_at(path);
        if (time && !fs::is_symlink(path, failed) && open_own_folder(path))
            found.emplace_back(*time, path);
        failed.clear();
    }
    std::sort(found.begin(), found.end());
    std::vector<std::string> out;
    for (auto& [time, path] : found) out.push_back(std::move(path));
    return out;
}

Result<std::string> shared_own_folder(const std::string& prefix) {
    auto there = own_folders(prefix);
    if (!there.empty()) return std::move(there.front());
    std::string made = prefix + ".XXXXXX";
    if (::mkdtemp(made.data()) == nullptr) return sys_error("make folder", made);
    ::usleep(more_than_a_tick);
    there = own_folders(prefix);
    if (there.empty() || there.front() == made) return made;
    ::rmdir(made.c_str());
    return std::move(there.front());
}

std::string fresh_name(const std::string& prefix) {
    std::array<char, 8> bytes{};
    while (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
        continue;
    return prefix + "." + encode_hex({bytes.data(), bytes.size()});
}

namespace {

// Where all of a user's processes agree that his folder is. It is asked for in each move and each
// stop, so it is looked for once in a process, as long as it is there.
Result<std::string> agreed_folder(const std::string& prefix) {
    static std::mutex lock;
    static std::string known;
    const std::scoped_lock locked(lock);
    if (known.starts_with(prefix + ".") && open_own_folder(known)) return known;
    auto found = shared_own_folder(prefix);
    if (found.ok()) known = *found;
    return found;
}

}  // namespace

Result<std::string> private_folder() {
    const std::string name = "ghost-" + std::to_string(::geteuid());
    if (::geteuid() == 0) {
        auto path = "/run/" + name;
        auto folder = make_own_folder(path);
        if (folder.ok()) return path;
        if (folder.error().code == Code::refused) return folder.error();
    }
    return agreed_folder("/dev/shm/" + name);
}

}  // namespace ghost
