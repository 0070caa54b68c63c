// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/snapshots/folder.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <set>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/addresses.hpp"
#include "base/own_file.hpp"

namespace ghost::plugin {

namespace {

namespace fs = std::filesystem;

constexpr const char* partial_suffix = ".partial";
constexpr mode_t folder_mode = 0700;

std::string join(const std::string& folder, const std::string& name) {
    return folder + "/" + name;
}

// Names of what looks like a snapshot in a folder.
std::vector<std::pair<std::string, SnapshotName>> entries(const std::string& folder,
                                                          std::error_code& failed) {
    std::vector<std::pair<std::string, SnapshotName>> out;
    for (fs::directory_iterator it(folder, failed), none; !failed && it != none;
         it.increment(failed)) {
        const std::string name = it->path().filename();
        if (auto parts = parse_snapshot_name(name)) out.emplace_back(name, *parts);
    }
    return out;
}

Status sync_folder(const std::string& path) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return sys_error("open folder", path);
    if (::fsync(fd.get()) != 0 && errno != EINVAL) return sys_error("sync folder", path);
    return {};
}

Status remove_folder(const std::string& path) {
    std::error_code failed;
    fs::remove_all(path, failed);
    // somebody else of the same job may be removing it too
    if (failed && failed.value() != ENOENT) return sys_error_of(failed.value(), "remove", path);
    return {};
}

Result<Fd> find_file(const std::string& path) {
    auto fd = open_own_file(path);
    if (fd.ok() || fd.error().code != Code::not_found) return fd;
    return sys_error_of(fd.error().sys, "find", path, Code::not_found);
}

Status check_size(const std::string& path, uint64_t bytes) {
    const auto fd = find_file(path);
    if (!fd) return fd.error();
    struct stat info {};
    if (::fstat(fd->get(), &info) != 0) return sys_error("look at", path);
    if (static_cast<uint64_t>(info.st_size) == bytes) return {};
    return make_error(Code::corrupt, "use", path,
                      fmt::format("it has {} bytes, {} were written", info.st_size, bytes));
}

// Manifests of the snapshots that others are based on, each read once.
class Parents {
  public:
    explicit Parents(std::string folder) : folder_(std::move(folder)) {}

    Status check(const std::string& file) {
        const std::string snapshot = file.substr(0, file.find('/'));
        const std::string name = file.substr(snapshot.size() + 1);
        auto [known, first] = known_.try_emplace(snapshot);
        if (first) {
            if (auto manifest = read_manifest(join(folder_, snapshot)); manifest.ok())
                for (const auto& rank : manifest->ranks) known->second[rank.file] = rank.bytes;
        }
        const std::string path = join(folder_, file);
        const auto row = known->second.find(name);
        if (row != known->second.end()) return check_size(path, row->second);
        // without its manifest nothing is known of its size; its digest will say
        const auto fd = find_file(path);
        return fd.ok() ? Status() : fd.error();
    }

  private:
    std::string folder_;
    std::map<std::string, std::map<std::string, uint64_t>> known_;
};

}  // namespace

std::string snapshot_name(const std::string& job, uint64_t number) {
    return fmt::format("{}-{:06}", job, number);
}

std::string partial_name(const std::string& name, const std::string& life) {
    return name + (life.empty() ? life : "." + life) + partial_suffix;
}

std::optional<SnapshotName> parse_snapshot_name(const std::string& name) {
    SnapshotName out;
    std::string rest = name;
    if (rest.ends_with(partial_suffix)) {
        out.partial = true;
        rest.resize(rest.size() - std::string(partial_suffix).size());
        const auto life = rest.find('.');
        if (life != std::string::npos &&
            rest.find_first_not_of("0123456789abcdef", life + 1) == std::string::npos)
            rest.resize(life);
    }
    const auto dash = rest.find('-');
    if (dash == 0 || dash == std::string::npos) return std::nullopt;
    out.job = rest.substr(0, dash);
    const std::string number = rest.substr(dash + 1);
    const char* digits = "0123456789";
    if (number.size() < 6 || number.size() > 18 ||
        out.job.find_first_not_of(digits) != std::string::npos ||
        number.find_first_not_of(digits) != std::string::npos)
        return std::nullopt;
    out.number = std::strtoull(number.c_str(), nullptr, 10);
    return out;
}

std::string rank_file(uint32_t rank, const std::string& compression) {
    const char* suffix = compression == "lz4" ? ".lz4" : compression == "zstd" ? ".zst" : "";
    return fmt::format("rank-{}.ghost{}", rank, suffix);
}

std::string events_file(const std::string& folder, const std::string& job) {
    return join(folder, job + ".events");
}

Status append_event(const std::string& folder, const std::string& job, const std::string& lines) {
    const std::string path = events_file(folder, job);
    const auto fd = open_own_file(path, O_WRONLY | O_CREAT | O_APPEND);
    if (!fd) return fd.error();
    if (::write(fd->get(), lines.data(), lines.size()) != static_cast<ssize_t>(lines.size()))
        return sys_error("write", path);
    return {};
}

namespace {

std::string lock_file(const std::string& folder, const std::string& job) {
    return join(folder, job + ".lock");
}

// What the holder has written: a line for people, and its life.
std::string lock_text(const std::string& who, const std::string& life) {
    return who + "\n" + life + "\n";
}

std::string holder_of(const Fd& file) {
    char text[256] = {};
    const ssize_t n = ::pread(file.get(), text, sizeof text, 0);
    return {text, static_cast<size_t>(std::max<ssize_t>(n, 0))};
}

}  // namespace

Result<Fd> lock_job(const std::string& folder, const std::string& job, const std::string& who,
                    const std::string& life) {
    const std::string path = lock_file(folder, job);
    auto fd = open_own_file(path, O_RDWR | O_CREAT);
    if (!fd) return fd;
    if (::flock(fd->get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return sys_error("lock", path);
        const std::string holder = holder_of(*fd);
        return make_error(
            Code::busy, "take over job", job,
            "it still runs: " +
                (holder.empty() ? "mpirun holds " + path : holder.substr(0, holder.find('\n'))));
    }
    const std::string text = lock_text(who, life);
    if (::ftruncate(fd->get(), 0) != 0 ||
        ::write(fd->get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        return sys_error("write", path);
    return fd;
}

bool holds_job(const Fd& lock, const std::string& folder, const std::string& job,
               const std::string& who, const std::string& life) {
    const auto now = open_own_file(lock_file(folder, job));
    struct stat held {
    }, there{};
    return lock && now.ok() && ::fstat(lock.get(), &held) == 0 &&
           ::fstat(now->get(), &there) == 0 && held.st_ino == there.st_ino &&
           held.st_dev == there.st_dev && holder_of(*now) == lock_text(who, life);
}

std::string name_of_this(const std::string& program) {
    return fmt::format("{} {} on {}", program, ::getpid(), host_name());
}

std::string memory_snapshots() {
    return fmt::format("/dev/shm/ghost-snapshots-{}", ::geteuid());
}

Result<std::string> open_snapshot_folder(const std::string& folder) {
    std::error_code failed;
    if (!fs::is_directory(folder, failed)) {
        const fs::path above = fs::absolute(folder, failed).parent_path();
        fs::create_directories(above, failed);
        if (::mkdir(folder.c_str(), folder_mode) != 0 && errno != EEXIST)
            return sys_error("make the folder of snapshots", folder);
    }
    GHOST_TRY(open_own_folder(folder));
    const fs::path real = fs::canonical(folder, failed);
    if (failed) return sys_error_of(failed.value(), "find the folder of snapshots", folder);
    if (::access(real.c_str(), W_OK | X_OK) != 0)
        return sys_error("write into the folder of snapshots", real);
    return real.string();
}

uint64_t next_snapshot_number(const std::string& folder, const std::string& job) {
    std::error_code ignored;
    uint64_t highest = 0;
    for (const auto& [name, parts] : entries(folder, ignored))
        if (parts.job == job) highest = std::max(highest, parts.number);
    return highest + 1;
}

Result<std::string> create_partial(const std::string& folder, const std::string& name,
                                   const std::string& life) {
    const std::string mine = partial_name(name, life);
    const auto wanted = parse_snapshot_name(mine);
    if (!wanted) return make_error(Code::invalid, "make a snapshot of the name", name);
    auto real = open_snapshot_folder(folder);
    if (!real) return real.error();
    std::error_code ignored;
    for (const auto& [other, parts] : entries(*real, ignored))
        if (parts.partial && parts.job == wanted->job && other != mine)
            GHOST_TRY(remove_folder(join(*real, other)));
    const std::string path = join(*real, mine);
    GHOST_TRY(make_own_folder(path));
    return path;
}

Status commit_snapshot(const std::string& folder, const std::string& name,
                       const std::string& life) {
    const std::string from = join(folder, partial_name(name, life)), to = join(folder, name);
    const bool was_done = ::access(from.c_str(), F_OK) != 0 && ::access(to.c_str(), F_OK) == 0;
    if (was_done) return {};
    GHOST_TRY(sync_folder(from));
    int why = ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
    // On this node's own disk or in its memory an earlier life of the job has left one that
    // mpirun's node has not: it was never complete, or is of after the snapshot that this life
    // began from.
    if (why == ENOTEMPTY || why == EEXIST) {
        GHOST_TRY(remove_folder(to));
        why = ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
    }
    if (why != 0) {
        // on a shared folder another node may have been first
        if (why == ENOENT && ::access(to.c_str(), F_OK) == 0) return {};
        return sys_error_of(why, "complete the snapshot", to);
    }
    return sync_folder(folder);
}

Status discard_partial(const std::string& folder, const std::string& name,
                       const std::string& life) {
    return remove_folder(join(folder, partial_name(name, life)));
}

Status remove_snapshot(const std::string& folder, const std::string& name) {
    const std::string from = join(folder, name), to = join(folder, partial_name(name));
    if (!parse_snapshot_name(name))
        return make_error(Code::invalid, "remove what is no snapshot", from);
    GHOST_TRY(remove_folder(to));
    if (::rename(from.c_str(), to.c_str()) != 0 && errno != ENOENT)
        return sys_error("remove the snapshot", from);
    return remove_folder(to);
}

namespace {

// Nodes of which no ghost is here. mpirun's own is number 0, and its manifest says so beside it.
std::set<std::string> nodes_away(const std::string& folder, const Manifest& manifest) {
    std::set<std::string> away;
    for (const auto& rank : manifest.ranks) away.insert(rank.node);
    for (const auto& node : manifest.nodes)
        if (node.id == 0) away.erase(node.name);
    for (const auto& rank : manifest.ranks)
        if (away.contains(rank.node) && ::access(join(folder, rank.file).c_str(), F_OK) == 0)
            away.erase(rank.node);
    return away;
}

}  // namespace

Status check_files(const std::string& folder, const Manifest& manifest,
                   std::vector<std::string>& away) {
    std::error_code ignored;
    const auto elsewhere = nodes_away(folder, manifest);
    away.assign(elsewhere.begin(), elsewhere.end());
    Parents parents(fs::weakly_canonical(folder, ignored).parent_path().string());
    for (const auto& rank : manifest.ranks) {
        if (elsewhere.contains(rank.node)) continue;
        GHOST_TRY(check_size(join(folder, rank.file), rank.bytes));
        for (const auto& parent : rank.chain) GHOST_TRY(parents.check(parent));
    }
    auto secret = read_secret(folder);
    return secret.ok() ? check_secret(manifest, *secret) : secret.error();
}

Snapshot look_at_snapshot(const std::string& path, const std::optional<PublicKey>& signer) {
    Snapshot out;
    std::error_code failed;
    fs::path real = fs::canonical(path, failed);
    if (failed) real = fs::path(path).lexically_normal();
    out.path = real.string();
    out.name = real.filename().string();
    if (auto parts = parse_snapshot_name(out.name)) out.parts = *parts;
    const auto own = open_own_folder(path);
    auto manifest = own.ok() ? read_manifest(out.path, signer) : own.error();
    if (!manifest) {
        out.why = manifest.error().message();
        return out;
    }
    if (out.parts.job.empty())
        if (auto parts = parse_snapshot_name(manifest->name)) out.parts = *parts;
    const Status files = check_files(out.path, *manifest, out.away);
    out.whole = files.ok() && !out.parts.partial;
    if (!files.ok())
        out.why = files.error().message();
    else if (out.parts.partial)
        out.why = "it was not completed";
    out.manifest = std::move(*manifest);
    return out;
}

Result<std::vector<Snapshot>> list_snapshots(const std::string& folder, const std::string& job,
                                             const std::optional<PublicKey>& signer) {
    GHOST_TRY(open_own_folder(folder));
    std::error_code failed;
    const auto names = entries(folder, failed);
    if (failed)
        return sys_error_of(failed.value(), "read the folder of snapshots", folder,
                            Code::not_found);
    std::map<std::string, std::vector<Snapshot>> by_job;
    for (const auto& [name, parts] : names)
        if (!parts.partial && (job.empty() || parts.job == job))
            by_job[parts.job].push_back(look_at_snapshot(join(folder, name), signer));
    // Numbers order the snapshots of one job, whatever its nodes' clocks say; times order jobs.
    std::vector<std::pair<std::string, std::vector<Snapshot>>> jobs;
    for (auto& [number, list] : by_job) {
        std::sort(list.begin(), list.end(), [](const Snapshot& a, const Snapshot& b) {
            return a.parts.number > b.parts.number;
        });
        std::string newest;
        for (const auto& one : list)
            if (one.manifest) newest = std::max(newest, one.manifest->time);
        jobs.emplace_back(newest, std::move(list));
    }
    std::stable_sort(jobs.begin(), jobs.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<Snapshot> out;
    for (auto& [time, list] : jobs) std::move(list.begin(), list.end(), std::back_inserter(out));
    return out;
}

std::vector<std::string> removable(const std::vector<Snapshot>& snapshots, const std::string& job,
                                   size_t keep) {
    std::vector<const Snapshot*> mine;
    for (const auto& one : snapshots)
        if (one.parts.job == job && !one.parts.partial) mine.push_back(&one);
    std::sort(mine.begin(), mine.end(), [](const Snapshot* a, const Snapshot* b) {
        return a->parts.number > b->parts.number;
    });
    std::set<std::string> kept;
    uint64_t newest_whole = 0;
    size_t whole = 0;
    for (const auto* one : mine) {
        if (!one->whole || whole >= std::max<size_t>(keep, 1)) continue;
        if (whole++ == 0) newest_whole = one->parts.number;
        kept.insert(one->name);
        for (const auto& rank : one->manifest->ranks)
            for (const auto& parent : rank.chain) kept.insert(parent.substr(0, parent.find('/')));
    }
    std::vector<std::string> out;
    for (const auto* one : mine)
        if (one->parts.number < newest_whole && !kept.contains(one->name)) out.push_back(one->name);
    return out;
}

}  // namespace ghost::plugin
