// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/files.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <sys/stat.h>
#include <unistd.h>

#include "base/encoding.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/hash.hpp"

namespace ghost::core {
namespace {

using Json = nlohmann::json;

// Larger files without a build id are known by size and time only.
constexpr int64_t hashed_limit = 4 << 20;

enum class Use { mapped, open, written };

const char* use_name(Use use) {
    return use == Use::mapped ? "mapped" : use == Use::open ? "open" : "written";
}

// Not a file that could be the same on another machine.
bool is_special(const std::string& path) {
    if (path.empty() || path[0] != '/') return true;
    if (is_of_kernel(path)) return true;
    for (const auto* prefix : {"/memfd:", "/SYSV", "/anon_hugepage", "/[aio]"})
        if (path.starts_with(prefix)) return true;
    return path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
}

// The kernel writes a newline in a path as \012 there (proc_pid_maps(5)).
std::string plain(const std::string& path) {
    std::string out;
    for (size_t at = 0; at < path.size(); at++) {
        const bool newline = path.compare(at, 4, "\\012") == 0;
        out += newline ? '\n' : path[at];
        if (newline) at += 3;
    }
    return out;
}

void note(std::map<std::string, Use>& files, const std::string& link, const std::string& shown,
          Use use) {
    if (is_special(shown)) return;
    const auto path = name_of(link, shown);
    if (path.empty()) return;
    const auto [at, fresh] = files.emplace(path, use);
    if (!fresh && use == Use::written) at->second = use;
    if (!fresh && use == Use::mapped && at->second == Use::open) at->second = use;
}

void note_mapped(std::map<std::string, Use>& files, pid_t pid) {
    std::ifstream in(fmt::format("/proc/{}/maps", pid));
    for (std::string line; std::getline(in, line);) {
        const auto slash = line.find('/');
        const auto space = line.find(' ');
        if (slash == std::string::npos || space == std::string::npos || space + 4 >= line.size())
            continue;
        const bool written = line[space + 4] == 's' && line[space + 2] == 'w';
        note(files, mapping_link(pid, line), plain(line.substr(slash)),
             written ? Use::written : Use::mapped);
    }
}

void note_open(std::map<std::string, Use>& files, pid_t pid) {
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
        note(files, entry.path(), path, link.st_mode & S_IWUSR ? Use::written : Use::open);
    }
}

std::string file_hash(const std::string& path) {
    const auto content = read_file(path);
    return content ? fmt::format("{:016x}", XXH3_64bits(content->data(), content->size())) : "";
}

int64_t mtime_ns(const struct stat& info) {
    return info.st_mtim.tv_sec * int64_t{1000000000} + info.st_mtim.tv_nsec;
}

Json describe(const std::string& path, Use use) {
    Json entry{{"path", path}, {"use", use_name(use)}};
    struct stat info {};
    if (use == Use::written || stat(path.c_str(), &info) != 0) return entry;
    entry["size"] = info.st_size;
    if (use == Use::open) return entry;
    if (auto id = build_id(path); !id.empty()) {
        entry["build_id"] = id;
        return entry;
    }
    entry["mtime"] = mtime_ns(info);
    if (info.st_size > hashed_limit) return entry;
    if (auto hash = file_hash(path); !hash.empty()) entry["hash"] = hash;
    return entry;
}

// Reads exactly `size` bytes at `offset`.
bool read_at(int fd, void* to, size_t size, uint64_t offset) {
    return pread(fd, to, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
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

// What is wrong with one entry here; empty: nothing.
std::string difference(const Json& entry) {
    if (!entry.is_object() || !entry.contains("path") || !entry["path"].is_string())
        return "the ghost lists a file without a path";
    const auto path = entry["path"].get<std::string>();
    struct stat info {};
    if (stat(path.c_str(), &info) != 0)
        return fmt::format("{}: {}", path, errno == ENOENT ? "is missing" : std::strerror(errno));
    if (const auto size = entry.find("size"); size != entry.end() && size->is_number_integer())
        if (size->get<int64_t>() != info.st_size)
            return fmt::format("{}: is different, {} bytes instead of {}", path, info.st_size,
                               size->get<int64_t>());
    if (const auto id = entry.find("build_id"); id != entry.end() && id->is_string()) {
        const auto here = build_id(path);
        if (here != id->get<std::string>())
            return fmt::format("{}: is different, build id {} instead of {}", path,
                               here.empty() ? "none" : here, id->get<std::string>());
        return {};
    }
    const auto mtime = entry.find("mtime"), hash = entry.find("hash");
    if (mtime == entry.end() || !mtime->is_number_integer() ||
        mtime->get<int64_t>() == mtime_ns(info))
        return {};
    if (hash != entry.end() && hash->is_string() && info.st_size <= hashed_limit &&
        hash->get<std::string>() == file_hash(path))
        return {};
    return fmt::format("{}: is different, changed at another time", path);
}

}  // namespace

bool is_of_kernel(const std::string& path) {
    return path.starts_with("/proc/") || path.starts_with("/sys/");
}

std::string mapping_link(pid_t pid, const std::string& line) {
    uint64_t start = 0, end = 0;
    const auto* const text = line.data();
    const auto dash = std::from_chars(text, text + line.size(), start, 16).ptr;
    std::from_chars(std::min(dash + 1, text + line.size()), text + line.size(), end, 16);
    return fmt::format("/proc/{}/map_files/{:x}-{:x}", pid, start, end);
}

std::string name_of(const std::string& link, const std::string& shown) {
    constexpr std::string_view removed = " (deleted)";
    if (!shown.ends_with(removed)) return shown;
    struct stat file {
    }, found{};
    if (stat(link.c_str(), &file) != 0 || file.st_nlink == 0 || S_ISDIR(file.st_mode)) return {};
    const auto folder = shown.substr(0, shown.rfind('/', shown.size() - removed.size()) + 1);
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

Json file_facts(const std::vector<pid_t>& tree) {
    std::map<std::string, Use> files;
    for (const auto pid : tree) {
        note_mapped(files, pid);
        note_open(files, pid);
    }
    Json out = Json::array();
    for (const auto& [path, use] : files) out.push_back(describe(path, use));
    return out;
}

std::vector<std::string> file_differences(const Json& files) {
    std::vector<std::string> out;
    if (!files.is_array()) return {"the ghost's list of files is damaged"};
    for (const auto& entry : files)
        if (auto line = difference(entry); !line.empty()) out.push_back(std::move(line));
    return out;
}

}  // namespace ghost::core
