// SPDX-License-Identifier: BSD-3-Clause
// A tree held by ptrace, every thread of it, to look at its state or to change it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <sys/types.h>
#include <sys/user.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/criu/placement.hpp"
#include "ghost-core/memory/page_set.hpp"
#include "ghost-core/memory/waits.hpp"

namespace ghost::core {

// What a thread needs to go on elsewhere, beside memory and what the kernel keeps of it.
struct ThreadState {
    int inner_tid = 0;
    user_regs_struct registers{};
    uint64_t signal_mask = 0;
    std::string extended;  // NT_X86_XSTATE
};

// Owned and used by one thread, which is the tracer: its end lets the tree go (or ends it).
// Destroyed: every thread goes on as it was.
class PtraceSession {
  public:
    struct Thread {
        pid_t tid = 0;
        int inner = 0;
    };
    struct Process {
        pid_t pid = 0;
        int inner = 0;
        bool stopped = false;         // by SIGSTOP or one of its kind, or told to by SIGSTOP
        std::vector<Thread> threads;  // the leader first
    };

    // Numbers of threads in their own PID name space, by their numbers here. Looked up before the
    // stop, they cost nothing in it.
    using Numbers = std::map<pid_t, int>;
    static Numbers numbers(pid_t root);

    // Holds every thread of the tree, also of one that is stopped by SIGSTOP. Nothing is executed
    // in it, and no call ends by it. timeout: a thread does not stop within limit_us; then all go
    // on.
    static Result<PtraceSession> take(pid_t root, const Numbers& known, int64_t limit_us);
    PtraceSession(PtraceSession&& other) noexcept;
    PtraceSession& operator=(PtraceSession&&) = delete;
    ~PtraceSession();

    const std::vector<Process>& processes() const { return processes_; }

    // From now on the end of this thread is the end of the tree.
    Status end_with_us();
    // Every thread goes on.
    void let_go();
    // Every process, or every one of these, is stopped as by SIGSTOP, until resume_tree(); no
    // thread of it executes anything in between. All others go on.
    void leave_stopped(const std::function<bool(const Process&)>& which = {});
    // SIGKILL to the tree, the init last, and reaps all its threads as their tracer; an init that
    // is this process's child is left to be waited for.
    void kill_tree();

    // Registers as the thread is to go on with elsewhere: an interrupted system call is made
    // again there.
    Result<ThreadState> state(const Thread& thread) const;
    // Whether a signal waits for the thread, or for its process.
    Result<bool> has_signal(const Thread& thread) const;
    Status set_state(const Thread& thread, const ThreadState& state) const;

    // For how long threads that wait for a duration still do: Placement::wait_ns. What memory of
    // a process take_up_waits() needs for that, by process.
    std::map<pid_t, PageRuns> add_waits(Placements& threads) const;
    // After set_state(), in a tree from elsewhere: they wait for so long (interrupted.hpp). What
    // cannot be is said in the log.
    void take_up_waits(const Placements& threads) const;

    // Undoes SIGSTOP: the processes stay held, and nothing of SIGCONT is left for them to see.
    Status unstop();
    // A system call in the leader of the process. The kernel's answer. After the first one its
    // registers are lost: set_state() has to follow. Only for a tree that ends with us.
    Result<long> call(const Process& process, long number, uint64_t a = 0, uint64_t b = 0,
                      uint64_t c = 0, uint64_t d = 0, uint64_t e = 0, uint64_t f = 0);

  private:
    PtraceSession() = default;
    SocketWaits waits_on_sockets() const;
    void detach();
    static Result<bool> is_stopped(const Process& process, int64_t deadline);
    Status seize_new(pid_t root, const Numbers& known, int64_t deadline, bool& any, Waits& waits);

    std::vector<Process> processes_;
    std::map<pid_t, uint64_t> instructions_;  // address of a `syscall`, by process
    Waits waits_;
};

}  // namespace ghost::core
