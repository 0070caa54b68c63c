// SPDX-License-Identifier: BSD-3-Clause
// Reading /proc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace ghost {

// The entries of a folder that are numbers; empty if it cannot be read.
std::vector<pid_t> numbers_in(const std::string& folder);

// Where a symbolic link leads, as /proc has them for what a process has open; empty if it cannot be
// read.
std::string link_of(const std::string& path);

// Children of all threads of a process, zombies included.
std::vector<pid_t> children_of(pid_t pid);

// 0 if it is gone.
pid_t parent_of(pid_t pid);

// Fields of /proc/PID/stat behind the name, which may hold anything; the first is the state, the
// third in proc(5). Empty if it is gone.
std::vector<std::string> stat_fields(pid_t pid);

// When it was started, ticks (sysconf(3)) after boot: with the pid, one process of this boot. Empty
// if it is gone.
std::string start_of(pid_t pid);

struct TaskStatus {
    std::string name;
    char state = '?';
    pid_t tracer = 0;
    std::vector<pid_t> numbers;  // in this PID name space, …, in its own
};

// "status" in this folder, /proc/PID or /proc/PID/task/TID; nothing if the task is gone.
std::optional<TaskStatus> read_status(const std::string& folder);

// Random UUID of this boot (random(4)): start times of another boot mean nothing. Empty if it
// cannot be read.
std::string boot_id();

// What /proc writes behind the name of a file that has been removed.
inline constexpr std::string_view removed_mark = " (deleted)";

// A mapping of a file, a line of /proc/PID/maps (proc_pid_maps(5)).
struct FileMapping {
    std::string name;  // removed_mark follows one that has been removed
    std::string link;  // leads to the file itself; open(2) follows it for root only
    dev_t device = 0;
    ino_t inode = 0;
    bool is_private = false, is_writable = false;
    uint64_t start = 0, bytes = 0;  // in the process
    uint64_t offset = 0;            // in the file

    uint64_t end_in_file() const { return offset + bytes; }
    bool is_removed() const { return name.ends_with(removed_mark); }
    // Which file it is of this machine's: "device-inode" in hexadecimal.
    std::string file_id() const;
    // Memory that several processes may write to, without a file of its own: a removed file, or one
    // in /dev/shm. Not what Ghost's links give up before a freeze, nor System V's.
    bool is_shared_memory() const;
};

// Those of a process; empty if they cannot be read.
std::vector<FileMapping> file_mappings_of(pid_t pid);

// What keeps a process from acting, as seen from outside.
struct Halt {
    pid_t pid = 0;         // which process; 0: nothing keeps it
    bool stopped = false;  // by SIGSTOP or one of its kind, or by its tracer
    pid_t tracer = 0;      // it is traced; 0: by nobody
    std::string by = {};   // the tracer's name

    explicit operator bool() const { return pid != 0; }
};

// Of one that is gone there is nothing to say. `ours`: a process that, with all it has started, may
// trace it.
Halt halt_of(pid_t pid, pid_t ours = 0);

// The same of the process that is numbered `inner` in the PID name space of the tree under `root`,
// of the root's first child for 0.
Halt halt_of_inner(pid_t root, pid_t inner, pid_t ours = 0);

}  // namespace ghost
