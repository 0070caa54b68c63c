// SPDX-License-Identifier: BSD-3-Clause
// Reading /proc; private to ghost-core.
#pragma once

#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace ghost::core {

// The entries of a folder that are numbers; empty if it cannot be read.
std::vector<pid_t> numbers_in(const std::string& folder);

// Children of all threads of a process, zombies included.
std::vector<pid_t> children_of(pid_t pid);

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

}  // namespace ghost::core
