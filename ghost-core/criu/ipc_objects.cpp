// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/ipc_objects.hpp"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <sys/sem.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/proc.hpp"

namespace ghost::core {
namespace {

// A line of a table below /proc/sysvipc, by the names of its columns; all are numbers.
using Row = std::map<std::string, int64_t>;

std::vector<Row> rows_of(const char* table) {
    std::vector<Row> out;
    std::ifstream in(fmt::format("/proc/sysvipc/{}", table));
    std::string line;
    std::getline(in, line);
    std::istringstream heads(line);
    std::vector<std::string> names;
    for (std::string name; heads >> name;) names.push_back(std::move(name));
    while (std::getline(in, line)) {
        std::istringstream values(line);
        Row row;
        for (const auto& name : names) values >> row[name];
        out.push_back(std::move(row));
    }
    return out;
}

std::string space_of(pid_t pid) {
    return link_of(fmt::format("/proc/{}/ns/ipc", pid));
}

// Of a process, seconds since 1970; now if it is gone.
time_t started(pid_t pid) {
    timespec up{};
    clock_gettime(CLOCK_BOOTTIME, &up);
    const auto ticks = std::strtoll(start_of(pid).c_str(), nullptr, 10);
    return time(nullptr) - (ticks == 0 ? 0 : up.tv_sec - ticks / sysconf(_SC_CLK_TCK));
}

class Owner {
  public:
    Owner(const std::vector<Task>& tree, NameOf name_of) : name_of_(name_of) {
        for (const auto& task : tree) pids_.insert(task.pid);
        const pid_t program = tree[tree.size() > 1 ? 1 : 0].pid;
        struct stat info {};
        if (stat(fmt::format("/proc/{}", program).c_str(), &info) == 0) user_ = info.st_uid;
        since_ = started(program) - 1;  // of whole seconds both
    }

    bool has(int64_t pid) const { return pids_.count(static_cast<pid_t>(pid)) != 0; }
    // `users`: the processes that were last to use a part of it.
    bool owns(const Row& row, const std::vector<int64_t>& users) const {
        if (std::any_of(users.begin(), users.end(), [&](int64_t pid) { return has(pid); }))
            return true;
        const bool may_be = row.at("cuid") == user_ && row.at("ctime") >= since_;
        const bool has_name = row.at("key") != IPC_PRIVATE;
        return may_be && std::all_of(users.begin(), users.end(), [&](int64_t pid) {
                   return is_gone(pid) || (has_name && is_rank(pid));
               });
    }

  private:
    static bool is_gone(int64_t pid) {
        return pid == 0 || start_of(static_cast<pid_t>(pid)).empty();
    }
    bool is_rank(int64_t pid) const {
        return name_of_ != nullptr && name_of_(static_cast<pid_t>(pid)).starts_with("rank ");
    }

    NameOf name_of_;
    std::set<pid_t> pids_;
    int64_t user_ = -1;
    int64_t since_ = 0;
};

std::vector<int64_t> users_of_set(const Row& set) {
    std::vector<int64_t> out;
    for (int i = 0; i < set.at("nsems"); i++) {
        const int pid = semctl(static_cast<int>(set.at("semid")), i, GETPID);
        out.push_back(std::max(pid, 0));
    }
    return out;
}

// The inode of a mapping of such memory is its number (proc_pid_maps(5)).
std::set<int64_t> attached(const std::vector<Task>& tree) {
    std::set<int64_t> out;
    for (const auto& task : tree) {
        for (const auto& one : file_mappings_of(task.pid))
            if (one.name.starts_with("/SYSV")) out.insert(static_cast<int64_t>(one.inode));
    }
    return out;
}

std::string said(const std::string& who, const char* what, int64_t number, int64_t key,
                 char option) {
    return Refusal(Reason::node_object, option, number)
        .of(fmt::format("{}: {} {} (System V, key 0x{:08x})", who, what, number,
                        static_cast<uint32_t>(key)));
}

}  // namespace

std::vector<std::string> node_ipc_objects(const std::vector<Task>& tree, const std::string& who,
                                          NameOf name_of) {
    std::vector<std::string> out;
    if (tree.empty() || space_of(tree.front().pid) != space_of(getpid())) return out;
    const Owner owner(tree, name_of);
    const auto memories = rows_of("shm");
    const auto mapped = memories.empty() ? std::set<int64_t>() : attached(tree);
    for (const auto& row : memories)
        if (mapped.count(row.at("shmid")) != 0 || owner.has(row.at("cpid")))
            out.push_back(said(who, "shared memory", row.at("shmid"), row.at("key"), 'm'));
    for (const auto& row : rows_of("sem"))
        if (owner.owns(row, users_of_set(row)))
            out.push_back(said(who, "semaphore set", row.at("semid"), row.at("key"), 's'));
    for (const auto& row : rows_of("msg"))
        if (owner.owns(row, {row.at("lspid"), row.at("lrpid")}))
            out.push_back(said(who, "message queue", row.at("msqid"), row.at("key"), 'q'));
    return out;
}

}  // namespace ghost::core
