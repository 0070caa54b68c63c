// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/written_files.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/hash.hpp"
#include "base/proc.hpp"
#include "ghost-core/format/files.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {
namespace {

constexpr size_t copy_step = 1 << 30;
constexpr int64_t ns_of_second = 1'000'000'000;

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

int64_t time_ns(const timespec& time) {
    return time.tv_sec * ns_of_second + time.tv_nsec;
}

// A file, and where it can be opened.
struct Found {
    WrittenFile file;
    std::string link;
};

void take_size(const struct stat& info, WrittenFile& file) {
    file.size = static_cast<uint64_t>(info.st_size);
    file.device = info.st_dev;
    file.inode = info.st_ino;
    file.changed_ns = time_ns(info.st_ctim);
    file.taken_us = realtime_us();
}

// `shown`: as the kernel names it.
void look(const std::string& link, const std::string& shown, std::map<std::string, Found>& out) {
    struct stat info {};
    if (stat(link.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink == 0) return;
    if (!shown.starts_with("/")) return;
    Found found;
    found.link = link;
    found.file.path = name_of(link, shown);
    if (found.file.path.empty() || is_of_kernel(found.file.path)) return;
    take_size(info, found.file);
    out.emplace(found.file.path, std::move(found));
}

void look_at_descriptors(pid_t pid, std::map<std::string, Found>& out) {
    for (const int number : numbers_in(fmt::format("/proc/{}/fd", pid)))
        if (is_for_writing(pid, number)) {
            const auto link = fmt::format("/proc/{}/fd/{}", pid, number);
            look(link, link_of(link), out);
        }
}

// Where it can be opened; who is not root may by its name only, if that still leads there.
std::string way_to(const FileMapping& one) {
    struct stat info {};
    if (stat(one.link.c_str(), &info) == 0) return one.link;
    const bool there = stat(one.name.c_str(), &info) == 0 && info.st_ino == one.inode;
    return there ? one.name : "";
}

void look_at_mappings(pid_t pid, std::map<std::string, Found>& out) {
    for (const auto& one : file_mappings_of(pid))
        if (one.is_writable && !one.is_private) look(way_to(one), one.name, out);
}

bool same_file(const struct stat& info, const std::string& path) {
    struct stat there {};
    return stat(path.c_str(), &there) == 0 && there.st_dev == info.st_dev &&
           there.st_ino == info.st_ino;
}

// Up to `limit` bytes from the begin on; nothing on errors.
std::optional<std::string> read_begin(int fd, uint64_t limit) {
    std::string out(limit, '\0');
    size_t done = 0;
    while (done < out.size()) {
        const auto n = pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return std::nullopt;
        if (n == 0) break;
        done += static_cast<size_t>(n);
    }
    out.resize(done);
    return out;
}

// Bytes of a limit that a file of this size takes.
uint64_t whole_pages(uint64_t size) {
    constexpr uint64_t page = 4096;
    return std::max<uint64_t>((size + page - 1) / page, 1) * page;
}

// To be read; invalid if it has that name no more. The size and what is in it belong together, also
// when others have made it longer since it was found.
Fd open_again(Found& found, struct stat& info) {
    // Does not wait for a lease that somebody has on it.
    Fd fd(open(found.link.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd || fstat(fd.get(), &info) != 0 || !same_file(info, found.file.path)) return {};
    take_size(info, found.file);
    return fd;
}

// Without contents if it is too large now.
void read_contents(Found& found, uint64_t limit) {
    WrittenFile& file = found.file;
    struct stat info {};
    const Fd fd = open_again(found, info);
    if (!fd) return;
    if (file.size > limit) return;
    auto bytes = read_begin(fd.get(), file.size);
    if (!bytes) return;
    file.size = bytes->size();
    file.contents = {std::move(*bytes), info.st_mode & 07777, info.st_uid, info.st_gid};
}

void read_small_ones(std::map<std::string, Found>& found, const ContentsLimit& limit) {
    std::vector<Found*> small;
    for (auto& [path, one] : found)
        if (one.file.size <= limit.each) small.push_back(&one);
    std::ranges::stable_sort(small, {}, [](const Found* one) { return one->file.size; });
    uint64_t left = limit.all;
    for (Found* one : small) {
        if (whole_pages(one->file.size) > left) return;
        read_contents(*one, std::min(limit.each, left));
        if (one->file.contents) left -= std::min(left, whole_pages(one->file.size));
    }
}

void hash_others(std::map<std::string, Found>& found, uint64_t most) {
    for (auto& [path, one] : found) {
        if (one.file.contents) continue;
        if (most-- == 0) return;
        struct stat info {};
        const Fd fd = open_again(one, info);
        if (!fd) continue;
        one.file.hash = contents_hash(fd.get(), one.file.size);
        if (tells_by_time(one.file.path, one.file.size))
            one.file.modified_ns = time_ns(info.st_mtim);
    }
}

Status copy_contents(int from, int to, uint64_t size, const std::string& path) {
    off_t at = 0;
    while (static_cast<uint64_t>(at) < size) {
        const auto done =
            copy_file_range(from, &at, to, nullptr, std::min<uint64_t>(copy_step, size), 0);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return sys_error("keep a copy of a file that is changed", path);
        if (done == 0) break;
    }
    return {};
}

// Complete or absent: under another name until all is there.
Status keep_copy(int from, const struct stat& info, const std::string& path) {
    struct stat there {};
    if (stat(path.c_str(), &there) == 0) return {};
    const auto name = path + ".part";
    unlink(name.c_str());  // of one that did not come to its end
    const Fd to(open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!to) return sys_error("keep a copy of a file that is changed", path);
    auto status = copy_contents(from, to.get(), static_cast<uint64_t>(info.st_size), path);
    if (status.ok() && (fchmod(to.get(), info.st_mode & 07777) != 0 || fsync(to.get()) != 0 ||
                        rename(name.c_str(), path.c_str()) != 0))
        status = sys_error("keep a copy of a file that is changed", path);
    if (!status.ok()) unlink(name.c_str());
    return status;
}

}  // namespace

std::string FileContents::hash() const {
    const auto rest = fmt::format("{:o} {} {}", mode, owner, group);
    const auto seed = XXH3_64bits(rest.data(), rest.size());
    return fmt::format("{:016x}", XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed));
}

Result<std::vector<WrittenFile>> written_files(pid_t root, const ContentsLimit& limit) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    std::map<std::string, Found> found;
    for (const auto& task : *tasks) {
        look_at_descriptors(task.pid, found);
        look_at_mappings(task.pid, found);
    }
    if (limit.all > 0) read_small_ones(found, limit);
    hash_others(found, limit.hashed);
    std::vector<WrittenFile> out;
    for (auto& [path, one] : found) out.push_back(std::move(one.file));
    return out;
}

namespace {

Status long_enough(const struct stat& info, uint64_t size, const std::string& path) {
    const auto now = static_cast<uint64_t>(info.st_size);
    if (now >= size) return {};
    return because(
        Code::refused,
        fmt::format("it has {} bytes, {} less than when the snapshot was made:", now, size - now),
        path);
}

// Who changes a file has it locked meanwhile, a copy that is kept included. So long the others
// wait.
constexpr int64_t turn_limit_us = 15'000'000;
constexpr useconds_t next_turn_us = 2000;

// One of those that change a file at a time; a program may have it locked for good. `enough`: what
// is to be done has been done, by another caller. Without locks (some network file systems) a copy
// that is kept may be one of a file that has just been changed.
template <typename Enough>
Status lock(int fd, const std::string& path, Enough&& enough) {
    for (const int64_t limit = monotonic_us() + turn_limit_us;; usleep(next_turn_us)) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 || (errno != EWOULDBLOCK && errno != EINTR))
            return {};
        if (enough()) return {};
        if (monotonic_us() > limit)
            return because(Code::refused, path + ": somebody else has locked it");
    }
}

// Regular, and may be changed. A link was none when the snapshot was made: the kernel says where a
// file really is. Who may write to the folder may have put it there, to lead to another file.
Status is_ours(const struct stat& info, const std::string& tried, const std::string& path) {
    if (!S_ISREG(info.st_mode))
        return because(Code::refused, "it is no regular file any more", path);
    if (access(path.c_str(), R_OK | W_OK) != 0) return sys_error(tried, path);
    return {};
}

Error removed(const std::string& path) {
    return because(Code::not_found,
                   "it has been removed since the snapshot was made, which does not have its "
                   "contents",
                   path);
}

}  // namespace

Status may_cut_back(const std::string& path, uint64_t size, const std::optional<FileBegin>& begin) {
    const auto tried = fmt::format("cut back to {} bytes", size);
    struct stat info {};
    // Not opened before it is known: a FIFO would wait.
    if (lstat(path.c_str(), &info) != 0)
        return errno == ENOENT ? removed(path) : sys_error(tried, path);
    GHOST_TRY(is_ours(info, tried, path));
    GHOST_TRY(long_enough(info, size, path));
    if (!begin) return {};
    const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file) return sys_error(tried, path);
    const bool is_later = begin->modified_ns != 0 && fstat(file.get(), &info) == 0 &&
                          static_cast<uint64_t>(info.st_size) == begin->size &&
                          time_ns(info.st_mtim) != begin->modified_ns;
    if (!is_later && contents_hash(file.get(), begin->size) == begin->hash) return {};
    return because(Code::refused,
                   "it has been overwritten since the snapshot was made, which does not have its "
                   "contents:",
                   path);
}

Status cut_back(const std::string& path, uint64_t size, const std::string& kept,
                int64_t modified_ns) {
    GHOST_TRY(may_cut_back(path, size));
    const auto tried = fmt::format("cut back to {} bytes", size);
    struct stat info {};
    const Fd file(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file) return errno == ENOENT ? removed(path) : sys_error(tried, path);
    const auto has_size = [&] {
        return fstat(file.get(), &info) == 0 && static_cast<uint64_t>(info.st_size) == size;
    };
    if (has_size()) return {};
    if (!kept.empty()) GHOST_TRY(lock(file.get(), path, has_size));
    if (has_size()) return {};
    GHOST_TRY(long_enough(info, size, path));
    if (!kept.empty()) GHOST_TRY(keep_copy(file.get(), info, kept));
    if (ftruncate(file.get(), static_cast<off_t>(size)) != 0) return sys_error(tried, path);
    // Another restart of the same snapshot is to know it again. Only its owner may say so.
    const timespec times[] = {{0, UTIME_OMIT},
                              {modified_ns / ns_of_second, modified_ns % ns_of_second}};
    if ((modified_ns != 0 && futimens(file.get(), times) != 0 && errno != EPERM) ||
        fsync(file.get()) != 0)
        return sys_error(tried, path);
    return {};
}

namespace {

constexpr const char* putting = "put back its contents at the snapshot:";
constexpr int most_turns = 100;  // each is one of another caller

std::string folder_of(const std::string& path) {
    return path.substr(0, std::max<size_t>(path.rfind('/'), 1));
}

// Makes an open file the bytes and the mode; synced.
Status fill(int fd, const FileContents& contents, const std::string& path) {
    const std::string& bytes = contents.bytes;
    for (size_t done = 0; done < bytes.size();) {
        const auto n =
            pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error(putting, path);
        done += static_cast<size_t>(n);
    }
    if (ftruncate(fd, static_cast<off_t>(bytes.size())) != 0 || fchmod(fd, contents.mode) != 0 ||
        fsync(fd) != 0)
        return sys_error(putting, path);
    return {};
}

Status change(int fd, const FileContents& contents, const std::string& path,
              const std::string& kept) {
    struct stat info {};
    const auto has_them = [&] {
        const auto now = read_begin(fd, contents.bytes.size() + 1);
        return now && *now == contents.bytes;
    };
    const auto is_done = [&] {
        return has_them() && fstat(fd, &info) == 0 && (info.st_mode & 07777) == contents.mode;
    };
    if (is_done()) return {};
    GHOST_TRY(lock(fd, path, is_done));
    if (is_done()) return {};
    if (fstat(fd, &info) != 0) return sys_error(putting, path);
    if (!kept.empty() && !has_them()) GHOST_TRY(keep_copy(fd, info, kept));
    return fill(fd, contents, path);
}

Status sync_folder(const std::string& path) {
    const Fd folder(open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || fsync(folder.get()) != 0) return sys_error(putting, path);
    return {};
}

// Complete or absent. Nothing is done if another caller has been quicker: it is looked at again.
Status make(const std::string& path, const FileContents& contents) {
    const auto name = path + ".ghost-part";
    constexpr int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    Fd to(open(name.c_str(), flags | O_CREAT | O_EXCL, 0600));
    const bool made_here = to.valid();
    if (!to && errno == EEXIST) {
        to.reset(open(name.c_str(), flags));
        if (!to && errno == ENOENT) return {};  // its maker is done
    }
    struct stat info {
    }, there{};
    if (!to) return sys_error(putting, path, errno == ENOENT ? Code::not_found : Code::io);
    GHOST_TRY(lock(to.get(), name, [] { return false; }));
    if (fstat(to.get(), &info) != 0) return sys_error(putting, path);
    if (!S_ISREG(info.st_mode)) return because(Code::refused, "no regular file", name);
    if (!same_file(info, name)) return {};
    // whoever made it may have it open, and would write into what is given to root
    if (!made_here && (info.st_uid != geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0))
        return because(Code::refused, "it is not this user's alone:", name);
    if (lstat(path.c_str(), &there) == 0) {
        unlink(name.c_str());
        return {};
    }
    Status made = fill(to.get(), contents, path);
    // Only root may give it away; what others make is theirs. It may lose bits of its mode.
    if (made.ok() && (info.st_uid != contents.owner || info.st_gid != contents.group) &&
        (fchown(to.get(), contents.owner, contents.group) != 0 ? errno != EPERM
                                                               : fchmod(to.get(), contents.mode)))
        made = sys_error(putting, path);
    if (made.ok() && rename(name.c_str(), path.c_str()) != 0 && errno != ENOENT)
        made = sys_error(putting, path);
    if (!made.ok()) unlink(name.c_str());
    return made.ok() ? sync_folder(path) : made;
}

}  // namespace

Status may_put_back(const std::string& path, std::optional<uint32_t> mode) {
    struct stat info {};
    if (lstat(path.c_str(), &info) == 0) {
        GHOST_TRY(is_ours(info, putting, path));
        if (mode && *mode != (info.st_mode & 07777) && geteuid() != 0 && geteuid() != info.st_uid)
            return because(Code::refused, "its mode has changed, and it is another user's", path);
        return {};
    }
    if (errno != ENOENT) return sys_error(putting, path);
    const auto folder = folder_of(path);
    if (access(folder.c_str(), W_OK | X_OK) == 0) return {};
    const int why = errno;
    return sys_error_of(why, "make again, after it was removed, the file", path,
                        why == ENOENT ? Code::not_found : Code::io);
}

Status put_back(const std::string& path, const FileContents& contents, const std::string& kept) {
    for (int turn = 0; turn < most_turns; ++turn) {
        GHOST_TRY(may_put_back(path, contents.mode));
        const Fd file(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
        if (file) return change(file.get(), contents, path, kept);
        if (errno != ENOENT) return sys_error(putting, path);
        GHOST_TRY(make(path, contents));
    }
    return because(Code::busy, "others remove it again and again", path);
}

}  // namespace ghost::core
