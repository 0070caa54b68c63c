// SPDX-License-Identifier: BSD-3-Clause
#include "base/file.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.hpp"

namespace ghost {

Result<std::string> read_all(int fd, const std::string& what) {
    std::string out;
    char buffer[8192];
    for (;;) {
        ssize_t n = ::read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("read", what);
        if (n == 0) return out;
        out.append(buffer, static_cast<size_t>(n));
    }
}

Status write_all(int fd, const std::string& text, const std::string& what) {
    size_t done = 0;
    while (done < text.size()) {
        ssize_t n = ::write(fd, text.data() + done, text.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("write", what);
        done += static_cast<size_t>(n);
    }
    return {};
}

Result<size_t> read_at(int fd, void* data, size_t size, uint64_t offset, const std::string& what) {
    auto* at = static_cast<char*>(data);
    for (size_t done = 0; done < size;) {
        const ssize_t n = ::pread(fd, at + done, size - done, static_cast<off_t>(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("read", what);
        if (n == 0) return done;
        done += static_cast<size_t>(n);
    }
    return size;
}

Status write_at(int fd, const void* data, size_t size, uint64_t offset, const std::string& what) {
    const auto* at = static_cast<const char*>(data);
    for (size_t done = 0; done < size;) {
        const ssize_t n = ::pwrite(fd, at + done, size - done, static_cast<off_t>(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("write", what);
        done += static_cast<size_t>(n);
    }
    return {};
}

Result<std::string> read_file(const std::string& path) {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) {
        return sys_error("open", path, errno == ENOENT ? Code::not_found : Code::io);
    }
    return read_all(fd.get(), path);
}

Status write_file(const std::string& path, const std::string& text, mode_t mode) {
    std::string beside = path + ".new";
    Fd fd(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    if (!fd.valid()) return sys_error("create", beside);
    GHOST_TRY(write_all(fd.get(), text, beside));
    if (::fchmod(fd.get(), mode) != 0 || ::rename(beside.c_str(), path.c_str()) != 0) {
        return sys_error("replace", path);
    }
    return {};
}

}  // namespace ghost
