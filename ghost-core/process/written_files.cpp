#include "ghost-core/process/written_files.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <limits.h>
#include <map>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "ghost-core/process/proc.hpp"
#include "ghost-core/process/tree.hpp"

namespace ghost::core {
namespace {

constexpr size_t copy_step = 1 << 30;

// "flags:" of proc(5), fdinfo, octal.
bool is_for_writing(pid_t pid, int number) {
    std::ifstream in(fmt::format("/proc/{}/fdinfo/{}", pid, number));
    for (std::string word; in >> word;)
        if (word == "flags:") {
            int flags = 0;
            return in >> std::oct >> flags && (flags & O_ACCMODE) != O_RDONLY;
        }
    return false;
}

void look(pid_t pid, int number, std::map<std::string, WrittenFile>& out) {
    const auto link = fmt::format("/proc/{}/fd/{}", pid, number);
    struct stat info {};
    if (stat(link.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink == 0 ||
        !is_for_writing(pid, number))
        return;
    std::array<char, PATH_MAX> path{};
    const auto length = readlink(link.c_str(), path.data(), path.size());
    if (length <= 0 || path[0] != '/') return;
    WrittenFile file;
    file.path.assign(path.data(), static_cast<size_t>(length));
    file.size = static_cast<uint64_t>(info.st_size);
    file.device = info.st_dev;
    file.inode = info.st_ino;
    out.emplace(file.path, file);
}

Status copy_contents(int from, int to, uint64_t size, const std::string& path) {
    off_t at = 0;
    while (static_cast<uint64_t>(at) < size) {
        const auto done =
            copy_file_range(from, &at, to, nullptr, std::min<uint64_t>(copy_step, size), 0);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return sys_error("keep a copy of a longer file", path);
        if (done == 0) break;
    }
    return {};
}

// Complete or absent: under another name until all is there.
Status keep_copy(int from, const struct stat& info, const std::string& path) {
    struct stat there {};
    if (stat(path.c_str(), &there) == 0) return {};
    const auto name = path + ".part";
    const Fd to(open(name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!to) return sys_error("keep a copy of a longer file", path);
    auto status = copy_contents(from, to.get(), static_cast<uint64_t>(info.st_size), path);
    if (status.ok() && (fchmod(to.get(), info.st_mode & 07777) != 0 || fsync(to.get()) != 0 ||
                        rename(name.c_str(), path.c_str()) != 0))
        status = sys_error("keep a copy of a longer file", path);
    if (!status.ok()) unlink(name.c_str());
    return status;
}

}  // namespace

Result<std::vector<WrittenFile>> written_files(pid_t root) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    std::map<std::string, WrittenFile> found;
    for (const auto& task : *tasks)
        for (const int number : numbers_in(fmt::format("/proc/{}/fd", task.pid)))
            look(task.pid, number, found);
    std::vector<WrittenFile> out;
    for (auto& [path, file] : found) out.push_back(std::move(file));
    return out;
}

namespace {

Status long_enough(const struct stat& info, uint64_t size, const std::string& path) {
    const auto now = static_cast<uint64_t>(info.st_size);
    if (now >= size) return {};
    return make_error(
        Code::refused,
        fmt::format("it has {} bytes, {} less than when the snapshot was made:", now, size - now),
        path);
}

}  // namespace

Status may_cut_back(const std::string& path, uint64_t size) {
    const auto tried = fmt::format("cut back to {} bytes", size);
    struct stat info {};
    // Not opened before it is known: a FIFO would wait.
    if (stat(path.c_str(), &info) != 0)
        return sys_error(tried, path, errno == ENOENT ? Code::not_found : Code::io);
    if (!S_ISREG(info.st_mode))
        return make_error(Code::refused, "it is no regular file any more:", path);
    if (access(path.c_str(), R_OK | W_OK) != 0) return sys_error(tried, path);
    return long_enough(info, size, path);
}

Status cut_back(const std::string& path, uint64_t size, const std::string& kept) {
    GHOST_TRY(may_cut_back(path, size));
    const auto tried = fmt::format("cut back to {} bytes", size);
    struct stat info {};
    const Fd file(open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!file) return sys_error(tried, path, errno == ENOENT ? Code::not_found : Code::io);
    // One of those that cut it at a time. Without locks (some network file systems) the copy may be
    // one of a file that has just been cut.
    if (!kept.empty() && flock(file.get(), LOCK_EX) != 0 && errno == EINTR)
        return sys_error(tried, path);
    if (fstat(file.get(), &info) != 0) return sys_error(tried, path);
    GHOST_TRY(long_enough(info, size, path));
    if (static_cast<uint64_t>(info.st_size) == size) return {};
    if (!kept.empty()) GHOST_TRY(keep_copy(file.get(), info, kept));
    if (ftruncate(file.get(), static_cast<off_t>(size)) != 0 || fsync(file.get()) != 0)
        return sys_error(tried, path);
    return {};
}

}  // namespace ghost::core
