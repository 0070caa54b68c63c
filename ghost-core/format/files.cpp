// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/files.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <linux/magic.h>
#include <map>
#include <optional>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <tuple>
#include <unistd.h>

#include "base/encoding.hpp"
#include "base/fd.hpp"
#include "base/hash.hpp"
#include "base/proc.hpp"
#include "ghost-core/format/services.hpp"

namespace ghost::core {
namespace {

using Json = nlohmann::json;

// Larger files are known by size and time; where they have grown, by sampled_pieces of what they
// were.
constexpr int64_t hashed_limit = 4 << 20;
constexpr uint64_t sampled_pieces = 64, sampled_bytes = 4096;

const char* use_name(FileUse use) {
    return use == FileUse::mapped ? "mapped" : use == FileUse::open ? "open" : "written";
}

// Not a file that could be the same on another machine.
bool is_special(const std::string& path) {
    if (path.empty() || path[0] != '/') return true;
    if (is_of_kernel(path) || is_shared_copy(path)) return true;
    for (const auto* prefix : {"/memfd:", "/SYSV", "/anon_hugepage", "/[aio]"})
        if (path.starts_with(prefix)) return true;
    return path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
}

void note(UsedFiles& files, const std::string& link, const std::string& shown, FileUse use) {
    if (is_special(shown)) return;
    if (const auto path = name_of(link, shown); !path.empty()) add_use(files, path, use);
}

void note_mapped(UsedFiles& files, pid_t pid) {
    for (const auto& one : file_mappings_of(pid))
        note(files, one.link, one.name,
             one.is_writable && !one.is_private ? FileUse::written : FileUse::mapped);
}

void note_open(UsedFiles& files, pid_t pid) {
    std::error_code failed;
    const auto folder = fmt::format("/proc/{}/fd", pid);
    for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
        struct stat info {};
        if (stat(entry.path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
        const auto path = std::filesystem::read_symlink(entry.path(), failed);
        if (failed) continue;
        // the link's own mode says how it was opened (proc_pid_fd(5))
        struct stat link {};
        if (lstat(entry.path().c_str(), &link) != 0) continue;
        note(files, entry.path(), path, link.st_mode & S_IWUSR ? FileUse::written : FileUse::open);
    }
}

std::string file_hash(const std::string& path, uint64_t size) {
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    return fd ? contents_hash(fd.get(), size) : std::string();
}

int64_t in_ns(const timespec& time) {
    return time.tv_sec * int64_t{1000000000} + time.tv_nsec;
}

// What tells a file from all others, so that an answer about it is one about this one too.
Json identify(const std::string& path, FileUse use, Ghosts ghosts, const struct stat& info) {
    Json entry{{"path", path}, {"use", use_name(use)}};
    if (info.st_ino == 0) return entry;
    entry["mode"] = info.st_mode & 07777;
    if (ghosts == Ghosts::move) entry["file"] = file_identity(path, info.st_dev, info.st_ino);
    return entry;
}

// What costs time, and is of use only where it is another file.
Json describe(Json entry, FileUse use, Ghosts ghosts, const struct stat& info) {
    const auto path = entry["path"].get<std::string>();
    if (info.st_ino == 0 || (use == FileUse::written && ghosts == Ghosts::are_kept)) return entry;
    entry["size"] = info.st_size;
    if (auto id = use == FileUse::mapped ? build_id(path) : ""; !id.empty()) {
        entry["build_id"] = id;
        return entry;
    }
    entry["mtime"] = in_ns(info.st_mtim);
    auto hash = file_hash(path, static_cast<uint64_t>(info.st_size));
    if (!hash.empty()) entry["hash"] = std::move(hash);
    return entry;
}

// Reads exactly `size` bytes at `offset`.
bool read_at(int fd, void* to, size_t size, uint64_t offset) {
    return pread(fd, to, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
}

// Not the same files on every machine that has a folder of that name. Others are taken to be.
bool is_of_this_machine(const std::string& path) {
    constexpr long zfs = 0x2fc12fc1, xfs = 0x58465342;  // in no header
    constexpr long own[] = {TMPFS_MAGIC,       RAMFS_MAGIC,           EXT4_SUPER_MAGIC, xfs, zfs,
                            BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, F2FS_SUPER_MAGIC};
    struct statfs info {};
    // It may have been removed meanwhile.
    if (statfs(path.c_str(), &info) != 0 &&
        statfs(path.substr(0, path.rfind('/') + 1).c_str(), &info) != 0)
        return false;
    return std::ranges::find(own, static_cast<long>(info.f_type)) != std::end(own);
}

// The build id in a PT_NOTE segment's bytes.
std::string id_in_notes(const std::string& notes) {
    size_t at = 0;
    while (at + sizeof(Elf64_Nhdr) <= notes.size()) {
        Elf64_Nhdr note{};
        std::memcpy(&note, notes.data() + at, sizeof note);
        const size_t name = at + sizeof note;
        const size_t content = name + ((size_t{note.n_namesz} + 3) & ~size_t{3});
        if (content + note.n_descsz > notes.size()) return {};
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
            notes.compare(name, 4, std::string("GNU\0", 4)) == 0) {
            return encode_hex(std::string_view(notes).substr(content, note.n_descsz));
        }
        at = content + ((size_t{note.n_descsz} + 3) & ~size_t{3});
    }
    return {};
}

// A field of an entry; nothing: it is not there, or no such value.
std::optional<std::string> text_field(const Json& entry, const char* key) {
    const auto at = entry.find(key);
    if (at == entry.end() || !at->is_string()) return {};
    return at->get<std::string>();
}

std::optional<int64_t> number_field(const Json& entry, const char* key) {
    const auto at = entry.find(key);
    if (at == entry.end() || !at->is_number_integer()) return {};
    return at->get<int64_t>();
}

// What is wrong with what is in a file; empty: nothing. One that has grown is the same file as long
// as it begins as it was: whoever follows it has read no further.
std::string other_contents(const Json& entry, const std::string& path, const struct stat& info) {
    const auto size = number_field(entry, "size"), mtime = number_field(entry, "mtime");
    const auto hash = text_field(entry, "hash");
    if (size && info.st_size < *size)
        return fmt::format("{} bytes instead of {}", info.st_size, *size);
    const bool grown = size && info.st_size > *size;
    if (hash && (grown || info.st_size <= hashed_limit)) {
        const auto here = file_hash(path, static_cast<uint64_t>(size.value_or(info.st_size)));
        if (here == *hash) return {};
        return grown ? "longer, and its begin is another one" : "changed at another time";
    }
    return grown || !mtime || *mtime == in_ns(info.st_mtim) ? "" : "changed at another time";
}

// Whether it can be opened here as it was there; empty: it can.
std::string no_access(const Json& entry, const std::string& path, const struct stat& info) {
    if (!S_ISREG(info.st_mode)) return "is no regular file";
    const bool written = text_field(entry, "use") == use_name(FileUse::written);
    if (access(path.c_str(), written ? R_OK | W_OK : R_OK) == 0) return {};
    return fmt::format("cannot be opened for {}: {}", written ? "writing" : "reading",
                       std::strerror(errno));
}

// criu takes only one of the same mode.
std::string other_mode(const Json& entry, const struct stat& info) {
    const int64_t here = info.st_mode & 07777;
    const auto mode = number_field(entry, "mode");
    if (!mode || *mode == here) return {};
    return fmt::format("mode {:04o} instead of {:04o}", here, *mode);
}

std::string other_build(const Json& entry, const std::string& path, const struct stat& info,
                        const std::string& id) {
    if (const auto size = number_field(entry, "size"); size && *size != info.st_size)
        return fmt::format("{} bytes instead of {}", info.st_size, *size);
    const auto here = build_id(path);
    if (here == id) return {};
    return fmt::format("build id {} instead of {}", here.empty() ? "none" : here, id);
}

// What is wrong with one entry here; empty: nothing.
std::string difference(const Json& entry) {
    if (!entry.is_object() || !text_field(entry, "path"))
        return "the ghost lists a file without a path";
    const auto path = *text_field(entry, "path");
    struct stat info {};
    if (stat(path.c_str(), &info) != 0)
        return fmt::format("{}: {}", path, errno == ENOENT ? "is missing" : std::strerror(errno));
    if (const auto why = no_access(entry, path, info); !why.empty())
        return fmt::format("{}: {}", path, why);
    const auto file = text_field(entry, "file");
    if (file && *file == file_identity(path, info.st_dev, info.st_ino)) return {};
    std::string what = other_mode(entry, info);
    if (const auto id = text_field(entry, "build_id"); what.empty())
        what = id ? other_build(entry, path, info, *id) : other_contents(entry, path, info);
    return what.empty() ? "" : fmt::format("{}: is different, {}", path, what);
}

bool has_changed(const SeenFile& before, const SeenFile& now, Ghosts ghosts) {
    const auto which = [](const SeenFile& one) {
        return std::tie(one.use, one.mode, one.device, one.inode);
    };
    const auto what = [](const SeenFile& one) {
        return std::tie(one.size, one.modified_ns, one.changed_ns);
    };
    return which(before) != which(now) || (ghosts == Ghosts::are_kept && what(before) != what(now));
}

}  // namespace

bool is_of_kernel(const std::string& path) {
    return path.starts_with("/proc/") || path.starts_with("/sys/");
}

std::string name_of(const std::string& link, const std::string& shown) {
    if (!shown.ends_with(removed_mark)) return shown;
    struct stat file {
    }, found{};
    if (stat(link.c_str(), &file) != 0 || file.st_nlink == 0 || S_ISDIR(file.st_mode)) return {};
    const auto folder = shown.substr(0, shown.rfind('/', shown.size() - removed_mark.size()) + 1);
    std::error_code failed;
    for (const auto& entry : std::filesystem::directory_iterator(folder, failed))
        if (lstat(entry.path().c_str(), &found) == 0 && found.st_ino == file.st_ino &&
            found.st_dev == file.st_dev)
            return entry.path();
    return {};
}

std::string build_id(const std::string& path) {
    // neither a pipe nor a device of that name may make this wait
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    Elf64_Ehdr header{};
    if (!fd || !read_at(fd.get(), &header, sizeof header, 0) ||
        std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr))
        return {};
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment{};
        constexpr uint64_t notes_limit = 65536;
        if (!read_at(fd.get(), &segment, sizeof segment, header.e_phoff + i * sizeof segment))
            return {};
        if (segment.p_type != PT_NOTE || segment.p_filesz > notes_limit) continue;
        std::string notes(segment.p_filesz, '\0');
        if (!read_at(fd.get(), notes.data(), notes.size(), segment.p_offset)) return {};
        if (auto id = id_in_notes(notes); !id.empty()) return id;
    }
    return {};
}

std::string file_identity(const std::string& path, uint64_t device, uint64_t inode) {
    if (!is_of_this_machine(path)) return fmt::format("{:x}", inode);
    return fmt::format("{:x}:{:x}:{}", inode, device, boot_id());
}

std::string contents_hash(int fd, uint64_t size) {
    const bool whole = size <= static_cast<uint64_t>(hashed_limit);
    const uint64_t pieces = whole ? 1 : sampled_pieces, each = whole ? size : sampled_bytes;
    std::string bytes(pieces * each, '\0');
    for (uint64_t i = 0; i < pieces; i++)
        if (!read_at(fd, bytes.data() + i * each, each,
                     whole ? 0 : (size - each) * i / (pieces - 1)))
            return {};
    return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

bool tells_by_time(const std::string& path, uint64_t size) {
    return size > static_cast<uint64_t>(hashed_limit) && is_of_this_machine(path);
}

void add_use(UsedFiles& files, const std::string& path, FileUse use) {
    if (is_special(path)) return;
    const auto [at, fresh] = files.emplace(path, use);
    if (!fresh) at->second = std::max(at->second, use);
}

UsedFiles used_files(const std::vector<pid_t>& tree) {
    UsedFiles files;
    for (const auto pid : tree) {
        note_mapped(files, pid);
        note_open(files, pid);
    }
    return files;
}

SeenFiles see_files(const UsedFiles& files, Ghosts ghosts, const SeenFiles& before,
                    int64_t until_ns) {
    SeenFiles out;
    for (const auto& [path, use] : files) {
        struct stat info {};
        if (stat(path.c_str(), &info) != 0) info = {};
        SeenFile now;
        now.use = use;
        now.mode = info.st_mode & 07777;
        now.device = info.st_dev;
        now.inode = info.st_ino;
        now.size = info.st_size;
        now.modified_ns = in_ns(info.st_mtim);
        now.changed_ns = in_ns(info.st_ctim);
        const auto seen = before.find(path);
        const bool later = until_ns != INT64_MAX && (info.st_ino == 0 || now.changed_ns > until_ns);
        if (seen != before.end() && seen->second.use == use &&
            (later || !has_changed(seen->second, now, ghosts))) {
            out.insert(*seen);
            continue;
        }
        now.entry = describe(identify(path, use, ghosts, info), use, ghosts, info);
        out.emplace(path, std::move(now));
    }
    return out;
}

Json file_facts(const SeenFiles& files) {
    Json out = Json::array();
    for (const auto& [path, seen] : files) out.push_back(seen.entry);
    return out;
}

Json file_facts(const std::vector<pid_t>& tree, Ghosts ghosts) {
    return file_facts(see_files(used_files(tree), ghosts));
}

bool tells_of(const Json& told, const Json& entry) {
    if (!told.is_object() || !entry.is_object()) return false;
    if (!entry.contains("file")) return told == entry;
    return std::ranges::all_of(std::array{"path", "use", "mode", "file"}, [&](const char* key) {
        return told.contains(key) && entry.contains(key) && told[key] == entry[key];
    });
}

std::vector<FileDifference> file_differences(const Json& files) {
    std::vector<FileDifference> out;
    if (!files.is_array()) return {{"", "the ghost's list of files is damaged"}};
    for (const auto& entry : files)
        if (auto line = difference(entry); !line.empty())
            out.push_back(
                {entry.is_object() ? text_field(entry, "path").value_or("") : "", std::move(line)});
    return out;
}

}  // namespace ghost::core
