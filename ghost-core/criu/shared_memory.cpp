// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/shared_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include "base/proc.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/format/files.hpp"
#include "ghost-core/format/services.hpp"
#include "ghost-core/memory/pages.hpp"

namespace ghost::core {
namespace {

// Of a service's file a copy is taken.
bool is_memory(const FileMapping& one) {
    return one.is_shared_memory() && !is_shared_copy(one.name);
}

// By id.
std::multimap<std::string, FileMapping> mappings_of(pid_t pid) {
    std::multimap<std::string, FileMapping> out;
    for (auto& one : file_mappings_of(pid))
        if (is_memory(one)) out.emplace(one.file_id(), std::move(one));
    return out;
}

// "mnt_id:" of proc_pid_fdinfo(5): of whatever name space the file was opened in.
int mount_of(int fd) {
    std::ifstream in(fmt::format("/proc/self/fdinfo/{}", fd));
    for (std::string word; in >> word;)
        if (int mount = 0; word == "mnt_id:" && in >> mount) return mount;
    return -1;
}

// What of such memory is mapped by a tree, in KiB.
struct Mapped {
    uint64_t most = 0;   // of it by one mapping
    uint64_t share = 0;  // by all, a page that n mappings have counting 1/n (proc_pid_smaps(5))
};

void add_mapped_memory(pid_t pid, std::map<std::string, Mapped>& out) {
    std::map<std::string, std::string> ids;  // by range
    for (const auto& one : file_mappings_of(pid))
        if (is_memory(one)) ids.emplace(one.link.substr(one.link.rfind('/') + 1), one.file_id());
    if (ids.empty()) return;
    std::ifstream in(fmt::format("/proc/{}/smaps", pid));
    Mapped* here = nullptr;
    for (std::string line; std::getline(in, line);) {
        const std::string word = line.substr(0, line.find(' '));
        if (!word.ends_with(':')) {
            const auto found = ids.find(word);
            here = found == ids.end() ? nullptr : &out[found->second];
            continue;
        }
        if (here == nullptr) continue;
        const uint64_t kib = std::strtoull(line.c_str() + word.size(), nullptr, 10);
        if (word == "Rss:") here->most = std::max(here->most, kib);
        if (word == "Pss:") here->share += kib + 1;  // it is rounded down
    }
}

// A user may not look at his other ranks' mappings, who are in user name spaces of their own: what
// others have too is seen by his own pages.
std::set<std::string> mapped_by_others(const std::vector<Task>& tree) {
    std::map<std::string, Mapped> all;
    for (const auto& task : tree) add_mapped_memory(task.pid, all);
    std::set<std::string> out;
    for (const auto& [id, mapped] : all)
        if (mapped.share < mapped.most) out.insert(id);
    return out;
}

// As a descriptor of the tree leads to it.
Fd open_by_descriptor(const std::vector<Task>& tree, const FileMapping& mapped) {
    for (const auto& task : tree) {
        const std::string folder = fmt::format("/proc/{}/fd/", task.pid);
        for (const int number : numbers_in(folder)) {
            const std::string link = folder + std::to_string(number);
            struct stat info {};
            if (stat(link.c_str(), &info) == 0 && info.st_ino == mapped.inode &&
                info.st_dev == mapped.device)
                return Fd(open(link.c_str(), O_RDONLY | O_CLOEXEC));
        }
    }
    return {};
}

// Only root may open a mapping itself (proc(5)); another user's criu knows it by its device.
Status open_memory(const std::vector<Task>& tree, const FileMapping& mapped, SharedMemory& out) {
    out.file.reset(open(mapped.link.c_str(), O_RDONLY | O_CLOEXEC));
    if (!out.file && errno == EPERM && geteuid() != 0) {
        out.file = open_by_descriptor(tree, mapped);
        if (!out.file) {
            out.key = fmt::format("memory[{}]", out.id);
            out.named = !mapped.is_removed();
            for (const auto& piece : out.pieces) out.size = std::max(out.size, piece.end());
            return {};
        }
    }
    struct stat info {};
    if (!out.file || fstat(out.file.get(), &info) != 0)
        return sys_error("open shared memory", mapped.name);
    out.key = fmt::format("file[{:x}:{:x}]", mount_of(out.file.get()), info.st_ino);
    out.named = info.st_nlink != 0;
    out.size = static_cast<uint64_t>(info.st_size);
    out.mode = info.st_mode & 07777;
    return {};
}

// One piece of contents: where, how much, and the bytes.
struct Piece {
    uint64_t offset = 0, bytes = 0;
};

constexpr size_t page_bytes = 4096;

// Its page at this offset, of which at least one byte is not zero, or nothing.
void save_page(const char* page, uint64_t offset, std::string& out) {
    if (is_zero_page(page, page_bytes)) return;
    const Piece piece{offset, page_bytes};
    out.append(reinterpret_cast<const char*>(&piece), sizeof piece);
    out.append(page, page_bytes);
}

// A page behind the end of its file cannot be read, and is none of it.
Status save_mapped(const SharedMemory& memory, const MappedPiece& piece, uint64_t from,
                   std::string& out) {
    const Fd mem(open(fmt::format("/proc/{}/mem", piece.pid).c_str(), O_RDONLY | O_CLOEXEC));
    if (!mem) return sys_error("save shared memory", memory.name);
    for (uint64_t at = from; at < piece.end();) {
        char pages[64 * page_bytes];
        const size_t wanted = std::min<uint64_t>(sizeof pages, piece.end() - at);
        const auto n =
            pread(mem.get(), pages, wanted, static_cast<off_t>(piece.start + (at - piece.offset)));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EIO) return sys_error("save shared memory", memory.name);
        const uint64_t whole = n < 0 ? 0 : static_cast<uint64_t>(n) / page_bytes * page_bytes;
        for (uint64_t i = 0; i < whole; i += page_bytes) save_page(pages + i, at + i, out);
        at += std::max<uint64_t>(whole, page_bytes);
    }
    return {};
}

Result<std::string> mapped_contents(const SharedMemory& memory) {
    std::string out;
    uint64_t at = 0;
    for (const auto& piece : memory.pieces) {
        if (piece.end() <= at) continue;
        GHOST_TRY(save_mapped(memory, piece, at, out));
        at = piece.end();
    }
    return out;
}

Status save_piece(const SharedMemory& memory, const Piece& piece, std::string& out) {
    out.append(reinterpret_cast<const char*>(&piece), sizeof piece);
    const size_t begin = out.size();
    out.resize(begin + piece.bytes);
    for (size_t done = 0; done < piece.bytes;) {
        const auto n = pread(memory.file.get(), out.data() + begin + done, piece.bytes - done,
                             static_cast<off_t>(piece.offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return sys_error("save shared memory", memory.name);
        done += static_cast<size_t>(n);
    }
    return {};
}

Status fill_piece(int fd, const Piece& piece, const char* bytes) {
    for (size_t done = 0; done < piece.bytes;) {
        const auto n =
            pwrite(fd, bytes + done, piece.bytes - done, static_cast<off_t>(piece.offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("fill shared memory");
        done += static_cast<size_t>(n);
    }
    return {};
}

}  // namespace

bool SharedMemory::is_whole() const {
    uint64_t at = 0;
    for (const auto& piece : pieces)
        if (piece.offset <= at) at = std::max(at, piece.end());
    return file || at >= size;
}

Result<std::vector<SharedMemory>> shared_memory_of(pid_t root,
                                                   const std::vector<std::string>& known) {
    struct Own {
        const Task* task;
        FileMapping mapped;
        std::vector<MappedPiece> pieces;
    };
    auto tree = list_tree(root);
    if (!tree) return tree.error();
    std::map<std::string, Own> own;
    for (const auto& task : *tree)
        for (const auto& [id, mapped] : mappings_of(task.pid))
            own.try_emplace(id, Own{&task, mapped, {}})
                .first->second.pieces.push_back(
                    {task.pid, mapped.start, mapped.offset, mapped.bytes});
    std::vector<SharedMemory> out;
    if (own.empty()) return out;  // nearly always
    std::map<std::string, std::vector<pid_t>> others;
    for (const pid_t pid : numbers_in("/proc")) {
        if (std::ranges::find(*tree, pid, &Task::pid) != tree->end()) continue;
        for (const auto& [id, mapped] : mappings_of(pid))
            if (own.contains(id) && (others[id].empty() || others[id].back() != pid))
                others[id].push_back(pid);
    }
    if (geteuid() != 0)
        for (const auto& id : mapped_by_others(*tree)) others.try_emplace(id);
    for (const auto& id : known)
        if (own.contains(id)) others.try_emplace(id);
    for (auto& [id, pids] : others) {
        auto& [task, mapped, pieces] = own.at(id);
        std::ranges::sort(pieces, {}, &MappedPiece::offset);
        SharedMemory& one = out.emplace_back();
        one.id = id;
        one.name = mapped.name;
        one.process = task->inner;
        one.program = task->name;
        one.others = std::move(pids);
        one.pieces = std::move(pieces);
        GHOST_TRY(open_memory(*tree, mapped, one));
    }
    return out;
}

std::string shared_memory_file(const std::string& id) {
    return "ghost-shared-" + id;
}

Result<std::string> shared_contents(const SharedMemory& memory) {
    if (!memory.file) return mapped_contents(memory);
    std::string out;
    const auto size = static_cast<off_t>(memory.size);
    for (off_t at = 0; at < size;) {
        const off_t begin = lseek(memory.file.get(), at, SEEK_DATA);
        if (begin < 0 && errno == ENXIO) break;  // nothing follows
        const off_t end = begin < 0 ? -1 : lseek(memory.file.get(), begin, SEEK_HOLE);
        if (end < 0) return sys_error("look at shared memory", memory.name);
        const Piece piece{static_cast<uint64_t>(begin),
                          static_cast<uint64_t>(std::min(end, size) - begin)};
        GHOST_TRY(save_piece(memory, piece, out));
        at = end;
    }
    return out;
}

Status fill_shared(int fd, std::string_view contents) {
    while (!contents.empty()) {
        Piece piece;
        if (contents.size() >= sizeof piece) std::memcpy(&piece, contents.data(), sizeof piece);
        if (contents.size() < sizeof piece || contents.size() - sizeof piece < piece.bytes)
            return make_error(Code::corrupt, "fill shared memory", {},
                              "the ghost's list ends early");
        GHOST_TRY(fill_piece(fd, piece, contents.data() + sizeof piece));
        contents.remove_prefix(sizeof piece + piece.bytes);
    }
    return {};
}

}  // namespace ghost::core
