// SPDX-License-Identifier: BSD-3-Clause
#include "base/own_file.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <sys/stat.h>

namespace ghost {
namespace {

constexpr mode_t others_write = S_IWGRP | S_IWOTH;

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
    if ((info.st_mode & others_write) != 0)
        return refuse(path, "others may write to it; `chmod go-w` it if what is in it is yours");
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

}  // namespace ghost
