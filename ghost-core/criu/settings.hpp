// SPDX-License-Identifier: BSD-3-Clause
// What processes have asked of the kernel for themselves and CRIU does not carry: personality(2),
// core dump filter, merging of equal pages, mlockall(MCL_FUTURE), memory policies
// (set_mempolicy(2), mbind(2)), the nice value of a session's autogroup (sched(7)), and the time of
// day at which timers end. Read before a freeze, timers aside: nearly nobody has any of it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "base/schema.hpp"
#include "ghost-core/criu/tree.hpp"

namespace ghost::core {

// A policy as /proc/PID/numa_maps writes it: "bind:0-1", "interleave=static:0,2"; "default".
using MemoryPolicy = std::string;

struct MappingPolicy {
    uint64_t start = 0, end = 0;
    MemoryPolicy policy;
    static const schema::Record table;
};

// Each as it is without anybody's asking; numbers of threads are those of their own PID name space.
struct ProcessSettings {
    uint32_t personality = 0;
    uint32_t core_filter = 0x33;           // /proc/PID/coredump_filter
    bool merges = false;                   // prctl(PR_SET_MEMORY_MERGE)
    int future_locks = 0;                  // MCL_FUTURE, MCL_ONFAULT
    int session_nice = 0;                  // of a session leader's autogroup
    std::map<int, MemoryPolicy> policies;  // of threads; without those that have the default one
    std::vector<MappingPolicy> mappings;   // those with one of their own
    std::map<int, int64_t> timers;         // that end at a time of day (times_of_day())

    bool operator==(const ProcessSettings&) const;
};
using TreeSettings = std::map<int, ProcessSettings>;  // by process; without those that have none

// What takes long (20 ms), once in a process, that of waits too.
void prepare_settings();
// Looks at a tree that runs. What cannot be looked at is as if nobody had asked. Without timers.
TreeSettings settings_of(pid_t root);
// Adds the timers of a tree that is stopped.
void add_timers(const std::vector<Task>& tasks, TreeSettings& settings);

// The numbers of a list as the kernel writes them ("0-3,8"), all below `limit`; false: damaged.
bool each_listed(std::string_view text, size_t limit, const std::function<void(size_t)>& each);

// The mode, its flags and the nodes of a policy as set_mempolicy(2) takes them; false: unknown.
// Nodes that are numbered within a cpuset (MPOL_F_RELATIVE_NODES) are taken for the nodes they are.
bool take_apart(const MemoryPolicy& policy, int& mode, std::vector<uint64_t>& nodes);

// Gives the processes of a tree that was made of a ghost what they had. What cannot be is said in
// the log, once.
void give_settings(const std::vector<Task>& tasks, const TreeSettings& settings);

}  // namespace ghost::core
