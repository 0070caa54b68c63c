// SPDX-License-Identifier: BSD-3-Clause
// How the threads of a tree are scheduled: on which processors, in which class, with which
// priority, nice value, timer slack and io priority, and for how long they still sleep. CRIU
// carries class, priority and nice value only, and a freeze changes class, processors and timer
// slack for a while.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <sched.h>
#include <set>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/settings.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/memory/socket_waits.hpp"

namespace ghost::core {

inline constexpr uint64_t reset_on_fork = 1;  // SCHED_FLAG_RESET_ON_FORK of sched_setattr(2)
// struct sched_attr of sched_setattr(2).
struct ScheduleAttributes {
    uint32_t size = 0;
    uint32_t policy = 0;
    uint64_t flags = 0;
    int32_t nice = 0;
    uint32_t priority = 0;
    uint64_t runtime = 0, deadline = 0, period = 0;
    uint32_t util_min = 0, util_max = 0;
};

struct Placement {
    pid_t tid = 0;      // as numbered here
    int32_t inner = 0;  // as numbered in its own PID name space; 0: not known
    ScheduleAttributes attributes;
    int32_t nice = 0;  // also of a class that does not use it
    int32_t io_priority = 0;
    uint64_t slack_ns = 0;
    cpu_set_t processors{};
    int64_t wait_ns = 0;   // left of a wait for a duration that it was stopped in; 0: not known
    bool stopped = false;  // its process, by SIGSTOP or one of its kind, and not by a freeze
};
using Placements = std::vector<Placement>;

// Of a process, by its own number.
bool was_stopped(int inner, const Placements& threads);

// Adds how the threads of a process, which may be stopped, are placed that are not there yet.
void add_placements(pid_t pid, bool stopped, Placements& out);
// After all have stopped: names them by `numbers` (inner ones by those here). Those that were made
// meanwhile are added; true: there were some.
bool complete(const std::map<pid_t, int>& numbers, Placements& out);

// What is left of them, counted from now.
void keep_waits(const SocketWaits& waits, Placements& threads);
// Notes in a file how the threads of a tree are placed that is to be frozen, so that whoever lets
// it go can give it back, also when we are killed. Those that wait go on by themselves, but on a
// socket.
Status note_placements(pid_t root, const Placements& before);
// Those of processes that have ended without anybody who let them go on.
void remove_stale_notes();
// Puts the ordinary ones of them, noted before, into a real-time class, so that they stop and do
// what CRIU asks of them at once beside spinning neighbours. SIGSTOP has been sent to them: in that
// class, above our own, they would compute for ever on a processor that we need. CRIU takes the
// class along; give_back() or place() gives the ordinary one back, here or where the tree went.
void raise_priority(const Placements& threads);
// What a freeze has found that has to be known at its end.
struct Frozen {
    std::set<pid_t> stopped;  // processes that were so before
    SocketWaits waits;
};
// Gives a tree's threads back what a freeze by any process has taken. None: there was no freeze.
std::optional<Frozen> give_back(pid_t root, const std::vector<Task>& tasks);

// What a ghost says of its tree.
struct TreePlacement {
    cpu_set_t usable{};   // by a process that nobody has bound
    cpu_set_t binding{};  // of the exporting process: the job's, where mpirun has bound it
    Placements threads;   // without tid
    TreeSettings settings;
};
// The same of this machine and this process; no threads.
TreePlacement placement_here();

// As a file of a skeleton beside criu's, see docs/IMAGE_FORMAT.md.
inline constexpr const char* placement_file = "ghost-placement.json";
std::string encode(const TreePlacement& placement);
// Processors as the kernel lists them: "0-3,8".
std::string to_list(const cpu_set_t& processors);
Result<TreePlacement> decode_placement(std::string_view text);  // corrupt

// Where a thread is to run here that was placed so there:
// - one that was not bound there is not bound here;
// - one that had the job's binding has the one mpirun has given the job here, if it has;
// - any other one has the processors that it had;
// - and one that had processors that are not here has the job's binding.
cpu_set_t processors_here(const cpu_set_t& thread, const TreePlacement& there,
                          const TreePlacement& here);

// What mpirun would have bound one more process to here that it had bound to `there.binding`: that,
// or the next set of the same shape of which nothing is `taken`; that again where none is left. All
// that is usable where it was not bound, or was bound to what is not here.
cpu_set_t binding_here(const TreePlacement& there, const TreePlacement& here,
                       const cpu_set_t& taken);
// Binds this process so, whose siblings are the job's other processes on this node: a rank that
// came here would share the processor of another one otherwise, and both wait by spinning.
void bind_beside_siblings(const TreePlacement& there);

// Gives every thread of a tree that was made of a ghost what it had. What cannot be is said in the
// log, once. Of threads of which it says nothing only what raise_priority() has done is undone. The
// tree is stopped.
void place(const std::vector<Task>& tasks, const TreePlacement& there);

}  // namespace ghost::core
