// SPDX-License-Identifier: BSD-3-Clause
// A tree stopped before CRIU touches it, with what is needed to put it right if CRIU is killed.
//
// CRIU runs code of its own in the tasks. While a task is stopped by SIGSTOP, the end of its tracer
// at any moment only stops it again (the kernel's __ptrace_unlink), but maybe with registers, code
// or mappings that are CRIU's. Needs the change of CRIU that keeps it from leaving tasks where its
// own SIGTRAP would kill them (packaging/criu/README.md); without it repair() is mostly too late.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <sys/types.h>
#include <sys/user.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/placement.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/memory/waits.hpp"

namespace ghost::core {

// One thread at a time; stop() and repair() may be called by different ones.
class StoppedTree {
  public:
    // Stops every process of the tree (SIGSTOP, and nothing else, is left behind: resume_tree()
    // undoes it; no call ends by it) and notes the state of every thread, and which processes were
    // stopped before. timeout: one does not stop within limit_us.
    // Where criu has said that it leaves most threads alone (see Waits), those are not noted.
    enum class Note { all, touched };
    static Result<StoppedTree> stop(pid_t root, int64_t limit_us, Note which = Note::all);

    // After CRIU has ended in any way: every task is as stop() left it, and still stopped.
    Status repair();

    // not_found: what its ghost-init has started has been killed, before or since. That ends as
    // soon as it goes on, here or elsewhere: no ghost is to be made of it.
    Status program_lives() const;

    // The frozen tree, as list_tree() gave it.
    const std::vector<Task>& tasks() const { return tasks_; }
    // How its threads were scheduled before, and for how long they still sleep.
    const Placements& placements() const { return placements_; }
    // What a process of it has mapped, as /proc/PID/maps gave it; null for one that was not stopped
    // (it has ended).
    const std::string* maps(pid_t pid) const;

  private:
    struct Thread {
        pid_t tid = 0;
        user_regs_struct registers{};
        std::string extended;  // NT_X86_XSTATE
        uint64_t signal_mask = 0;
    };
    struct Mapping {
        uint64_t start = 0, end = 0;
        std::string access;  // "rwxp"
    };
    struct Process {
        pid_t pid = 0;
        std::vector<Thread> threads;  // that are noted, the leader first
        std::string maps;             // as the kernel lists them; taken apart only for a repair
        uint64_t code = 0;  // address of the first executable mapping, where CRIU puts system calls
        std::string begin;  // the bytes there
    };
    class Surgeon;

    static Result<Process> note(pid_t pid, const Waits& waits, Note which);
    void note_running(pid_t pid);
    SocketWaits note_waits(const Waits& waits, const SocketWaits& before);
    // Those whose line contains `only_of`; without it all.
    static std::vector<Mapping> mappings_in(const std::string& maps, const char* only_of = nullptr);

    std::vector<Task> tasks_;
    Placements placements_;
    std::vector<Process> processes_;
};

// In a stopped tree that was made of a ghost: every thread that sleeps for a duration gets what was
// left of it (`threads`). What cannot be is said in the log; then it waits for the whole duration.
// Those on sockets get it by continue_tasks().
SocketWaits take_up_waits(const std::vector<Task>& tasks, const Placements& threads);

}  // namespace ghost::core
