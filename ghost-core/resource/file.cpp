#include "ghost-core/resource/file.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>

namespace ghost::core {

FileResource::~FileResource() {
    if (!temporary_.empty()) unlink(temporary_.c_str());
}

Status FileResource::init() {
    if (use_ == Use::read) {
        fd_ = Fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd_) return sys_error("open ghost", path_);
        return {};
    }
    temporary_ = path_ + ".XXXXXX";
    fd_ = Fd(mkostemp(temporary_.data(), O_CLOEXEC));
    if (fd_) return {};
    auto error = sys_error("create ghost", path_);
    temporary_.clear();
    return error;
}

Status FileResource::write(const void* data, size_t size) {
    const auto* at = static_cast<const char*>(data);
    while (size > 0) {
        const auto done = ::write(fd_.get(), at, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return sys_error("write ghost", path_);
        at += done;
        size -= static_cast<size_t>(done);
    }
    return {};
}

Result<size_t> FileResource::read(void* data, size_t size) {
    for (;;) {
        const auto got = ::read(fd_.get(), data, size);
        if (got >= 0) return static_cast<size_t>(got);
        if (errno != EINTR) return sys_error("read ghost", path_);
    }
}

Status FileResource::finalize() {
    if (use_ == Use::read) return {};
    if (fsync(fd_.get()) != 0) return sys_error("flush ghost", path_);
    if (rename(temporary_.c_str(), path_.c_str()) != 0) return sys_error("name ghost", path_);
    temporary_.clear();
    const auto slash = path_.rfind('/');
    const auto folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    Fd dir(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!dir || fsync(dir.get()) != 0) return sys_error("flush folder", folder);
    return {};
}

}  // namespace ghost::core
