// SPDX-License-Identifier: BSD-3-Clause
// The processes of a tree as /proc shows them: who belongs to it, stop, continue, kill.
//
// A tree is one PID name space: its init (`root`, as numbered here) and all its descendants.
#pragma once

#include <set>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/memory/socket_waits.hpp"

namespace ghost::core {

struct Task {
    pid_t pid = 0;     // as numbered here
    pid_t inner = 0;   // as numbered in the task's own PID name space
    std::string name;  // comm
    char state = '?';  // as in /proc/PID/stat
};

// Every process (not thread) of the tree, the init first, parents before children.
// not_found if the root is gone.
Result<std::vector<Task>> list_tree(pid_t root);

// Waits until nobody traces a process of the tree; timeout otherwise.
Status wait_untraced(pid_t root, int64_t limit_us);

// Takes back what a freeze has changed (placement.hpp) without letting anything run: before the
// tree is ended, or the freeing of its memory would go before everything else on the machine.
void calm_tree(pid_t root);

// SIGSTOP to every process of the tree, until resume_tree(): a second one finds them stopped by it.
void halt_tree(pid_t root);

// SIGCONT to every process of the tree that a freeze or halt_tree() has stopped, when the criu of
// an exporter that was killed has left it. One that was stopped before stays so.
Status resume_tree(pid_t root);

// The same for a tree that nobody traces any more and whose tasks are known.
Status resume_tasks(pid_t root, const std::vector<Task>& tasks);

// SIGCONT only, but to those that stay as they are: its threads are scheduled as they are to be.
// Those that wait on sockets do so until `waits` says; nobody traces any of them.
Status continue_tasks(const std::vector<Task>& tasks, const std::set<pid_t>& stay = {},
                      const SocketWaits& waits = {});

// A thread of the tree and its process, both as numbered here, as tgkill(2) wants them.
struct ThreadId {
    pid_t pid = 0;
    pid_t tid = 0;
};
Result<ThreadId> find_thread(pid_t root, pid_t inner_tid);

}  // namespace ghost::core
