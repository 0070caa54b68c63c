// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/stopped_tree.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <set>
#include <sstream>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/interrupted.hpp"

namespace ghost::core {
namespace {

constexpr int64_t second_us = 1000000;
constexpr size_t extended_bytes = 16384;       // the largest XSAVE area known is 11008 bytes
constexpr size_t begin_bytes = 64;             // CRIU writes a system call and a name there
constexpr const char* blob = "memfd:CRIUMFD";  // CRIU's code in a task (compel)
constexpr int most_stops = 400;                // of a task on its way out of CRIU's code
// A task that is told to stop does so at once, unless it has to wait for a processor.
constexpr int quick_looks = 40;

// Before the look after that many in vain.
void rest_before(int look, useconds_t us) {
    if (look < quick_looks)
        sched_yield();
    else
        usleep(us);
}

long trace(int request, pid_t tid, uint64_t address, void* data) {
    return syscall(SYS_ptrace, request, tid, address, data);
}

Error trace_error(const char* what, pid_t tid) {
    return sys_error(fmt::format("{} thread", what), std::to_string(tid));
}

// A stopped thread, seized; let go at the end, which stops it again.
class Seized {
  public:
    explicit Seized(pid_t tid) : Seized(tid, Later{}) { arrive(); }
    // The caller does not wait yet: of many threads each takes its time to come to its stop, and
    // all do so at once. arrive() has to follow.
    struct Later {};
    Seized(pid_t tid, Later) : tid_(tid), held_(trace(PTRACE_SEIZE, tid, 0, nullptr) == 0) {
        // It may still be on its way into the stop that its last tracer's end left it to.
        if (held_ && trace(PTRACE_INTERRUPT, tid, 0, nullptr) != 0) let_go();
    }
    // What held() says counts afterwards.
    void arrive() {
        if (held_ && !wait_stop()) let_go();
    }
    ~Seized() {
        if (held_) let_go();
    }
    Seized(const Seized&) = delete;
    Seized& operator=(const Seized&) = delete;

    bool held() const { return held_; }
    pid_t tid() const { return tid_; }

    Result<user_regs_struct> registers() const {
        user_regs_struct out{};
        iovec part{&out, sizeof out};
        if (trace(PTRACE_GETREGSET, tid_, NT_PRSTATUS, &part) != 0)
            return trace_error("read", tid_);
        return out;
    }
    Status set_registers(user_regs_struct registers) const {
        iovec part{&registers, sizeof registers};
        if (trace(PTRACE_SETREGSET, tid_, NT_PRSTATUS, &part) != 0) return trace_error("set", tid_);
        return {};
    }

    // Lets it run until it stops for the tracer again; the status of wait4(2).
    Result<int> go(int request) const {
        if (trace(request, tid_, 0, nullptr) != 0) return trace_error("continue", tid_);
        return wait_stop();
    }
    Result<int> wait_stop() const {
        const int64_t limit = monotonic_us() + second_us;
        for (int look = 0; monotonic_us() < limit; look++) {
            int status = 0;
            const pid_t got = waitpid(tid_, &status, __WALL | WNOHANG);
            if (got == tid_ && WIFSTOPPED(status)) return status;
            if (got == tid_ || (got < 0 && errno != EINTR)) return trace_error("wait for", tid_);
            rest_before(look, 20);
        }
        return make_error(Code::timeout, "wait for thread", std::to_string(tid_));
    }

    // To the stop of PTRACE_INTERRUPT, without an instruction; signals of CRIU's code are dropped.
    Status settle() const {
        for (int i = 0; i < 8; i++) {
            if (trace(PTRACE_INTERRUPT, tid_, 0, nullptr) != 0) return trace_error("stop", tid_);
            auto status = go(PTRACE_CONT);
            if (!status) return status.error();
            if (*status >> 16 == PTRACE_EVENT_STOP) return {};
        }
        return make_error(Code::internal, "settle thread", std::to_string(tid_));
    }

  private:
    void let_go() {
        const int why = errno;
        trace(PTRACE_DETACH, tid_, 0, nullptr);
        held_ = false;
        errno = why;
    }

    pid_t tid_;
    bool held_;
};

// Signals that wait: which = "SigPnd:" for the thread, "ShdPnd:" for its process; folder: its one
// in /proc.
bool is_pending(const std::string& folder, const char* which, int signal) {
    std::ifstream in(folder + "/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(which))
            return (std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) != 0;
    return false;
}

bool is_syscall_stop(int status) {
    return status >> 8 == (SIGTRAP | 0x80);
}

// Stopped, or ended.
bool is_still(const std::optional<TaskStatus>& status) {
    return !status || status->state == 'T' || status->state == 'Z' || status->state == 'X';
}

Status write_memory(pid_t pid, uint64_t at, const std::string& bytes) {
    Fd memory(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDWR | O_CLOEXEC));
    if (!memory || pwrite(memory.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)) !=
                       static_cast<ssize_t>(bytes.size()))
        return sys_error("write memory of process", std::to_string(pid));
    return {};
}

std::string read_memory(pid_t pid, uint64_t at, size_t size) {
    std::string out(size, '\0');
    Fd memory(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC));
    const auto got = pread(memory.get(), out.data(), size, static_cast<off_t>(at));
    out.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return out;
}

// The tree is frozen while this is read: in large pieces, and nothing but that.
std::string maps_of(pid_t pid) {
    Fd maps(open(fmt::format("/proc/{}/maps", pid).c_str(), O_RDONLY | O_CLOEXEC));
    std::string out(64 << 10, '\0');
    size_t size = 0;
    for (ssize_t got = 0; maps && (got = read(maps.get(), &out[size], out.size() - size)) > 0;) {
        size += static_cast<size_t>(got);
        if (size == out.size()) out.resize(size * 2);
    }
    out.resize(size);
    return out;
}

// The address of the first mapping that may be executed, of lines "start-end rwxp ..."; 0: none.
uint64_t first_code(const std::string& maps) {
    size_t line = 0;
    for (size_t end = 0; (end = maps.find('\n', line)) != std::string::npos; line = end + 1) {
        const size_t access = maps.find(' ', line) + 1;
        if (access + 3 < end && maps[access + 2] == 'x')
            return std::strtoull(&maps[line], nullptr, 16);
    }
    return 0;
}

int protection(const std::string& access) {
    return (access[0] == 'r' ? 1 : 0) | (access[1] == 'w' ? 2 : 0) | (access[2] == 'x' ? 4 : 0);
}

}  // namespace

std::vector<StoppedTree::Mapping> StoppedTree::mappings_in(const std::string& maps,
                                                           const char* only_of) {
    std::vector<Mapping> out;
    std::istringstream in(maps);
    for (std::string line; std::getline(in, line);) {
        if (only_of != nullptr && line.find(only_of) == std::string::npos) continue;
        Mapping one;
        char dash = 0;
        std::istringstream words(line);
        words >> std::hex >> one.start >> dash >> one.end >> one.access;
        if (one.access.size() == 4) out.push_back(std::move(one));
    }
    return out;
}

namespace {

// One that was on its way out when it was told to stop cannot be traced, nor need it be.
bool has_ended(pid_t pid, pid_t tid) {
    const int why = errno;
    const auto status = read_status(fmt::format("/proc/{}/task/{}", pid, tid));
    errno = why;
    return !status || status->state == 'Z' || status->state == 'X';
}

}  // namespace

Result<StoppedTree::Process> StoppedTree::note(pid_t pid, const Waits& waits, Note which) {
    Process out;
    out.pid = pid;
    auto tids = numbers_in(fmt::format("/proc/{}/task", pid));
    if (which == Note::touched)
        std::erase_if(tids, [&](pid_t tid) { return tid != pid && waits.is_left_alone(tid); });
    std::sort(tids.begin(), tids.end(),
              [pid](pid_t a, pid_t b) { return a == pid ? b != pid : b != pid && a < b; });
    std::string extended(extended_bytes, '\0');
    std::deque<Seized> tasks;
    for (const pid_t tid : tids)
        if (!tasks.emplace_back(tid, Seized::Later{}).held() && !has_ended(pid, tid))
            return trace_error("look at", tid);
    for (auto& task : tasks) {
        if (!task.held()) continue;
        task.arrive();
        const pid_t tid = task.tid();
        if (!task.held() && has_ended(pid, tid)) continue;
        if (!task.held()) return trace_error("look at", tid);
        waits.go_on(pid, tid);
        Thread thread;
        thread.tid = tid;
        auto registers = task.registers();
        if (!registers) return registers.error();
        thread.registers = *registers;
        iovec part{extended.data(), extended.size()};
        if (trace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &part) != 0 ||
            trace(PTRACE_GETSIGMASK, tid, sizeof thread.signal_mask, &thread.signal_mask) != 0)
            return trace_error("read", tid);
        thread.extended.assign(extended, 0, part.iov_len);
        out.threads.push_back(std::move(thread));
    }
    tasks.clear();
    out.maps = maps_of(pid);
    out.code = first_code(out.maps);
    if (out.code != 0) out.begin = read_memory(pid, out.code, begin_bytes);
    return out;
}

namespace {

// Processes of a tree that have been told to stop.
class Stopping {
  public:
    // told: those that have been told before.
    explicit Stopping(int64_t deadline_us, std::set<pid_t> told = {})
        : deadline_us_(deadline_us), told_(std::move(told)) {}

    const std::set<pid_t>& all() const { return told_; }
    // Of their threads that have stopped: inner numbers by those here.
    const std::map<pid_t, int>& numbers() const { return numbers_; }
    bool knows(const Task& task) const { return told_.contains(task.pid); }
    // by_freeze: if it is stopped, another freeze has done that. One that somebody else has stopped
    // gets no signal, which would wait in it for as long.
    void tell(const Task& task, bool by_freeze) {
        told_.insert(task.pid);
        if (task.state != 'T') ours_.insert(task.pid);
        if (task.state == 'T' && !by_freeze)
            before_.insert(task.pid);
        else
            kill(task.pid, SIGSTOP);
    }
    // When it was told, and nobody has woken it since.
    bool was_stopped(pid_t pid) const { return before_.contains(pid); }
    // Those that somebody has woken.
    const std::set<pid_t>& ran_after_all() const { return ran_; }
    // Waits until all have stopped, but for those that had to go on: they are to be told again.
    // One that has been seen to stop is not looked at again, unless it was woken meanwhile. Those
    // that somebody else has woken meanwhile (SIGCONT, of a process of the tree itself maybe).
    Result<std::set<pid_t>> wait() {
        const auto told = told_;
        woken_.clear();
        for (const pid_t pid : told) GHOST_TRY(wait_for(pid));
        return woken_;
    }

    void all_were_woken() { stopped_.clear(); }

  private:
    // A thread that has stopped stays so; one that has been made meanwhile is told to stop as well.
    Status wait_for(pid_t pid) {
        const auto folder = fmt::format("/proc/{}/task", pid);
        for (bool all = false; !all && told_.contains(pid);) {
            all = true;
            const auto tids = numbers_in(folder);
            size_t waited = 0, next_look = tids.size() < many_threads ? SIZE_MAX : 1;
            for (const pid_t tid : tids) {
                if (stopped_.contains(tid)) continue;
                all = false;
                GHOST_TRY(wait_for(pid, tid));
                if (!told_.contains(pid)) break;
                stopped_.insert(tid);
                if (++waited < next_look) continue;
                look_at_all(pid);
                next_look *= 8;
            }
        }
        return {};
    }
    // One look costs less than one at each, as soon as most of them have stopped.
    void look_at_all(pid_t pid) {
        for (const auto& [tid, number] : Waits::stopped_threads(pid)) {
            numbers_[tid] = number;
            stopped_.insert(tid);
        }
    }
    Status wait_for(pid_t pid, pid_t tid) {
        const int64_t begun = monotonic_us();
        const auto folder = fmt::format("/proc/{}/task/{}", pid, tid);
        for (int look = 0; told_.contains(pid); look++) {
            const auto status = read_status(folder);
            if (status && status->state == 'T') numbers_[tid] = status->numbers.back();
            if (is_still(status)) break;
            const int64_t now = monotonic_us();
            if (now > deadline_us_)
                return make_error(Code::timeout, "freeze process", std::to_string(pid),
                                  why_not(*status));
            if (now - begun > patience_us) {
                let_new_children_go_on(pid, tid);
                let_tracer_go_on(*status);
                if (status->state != 'D') stop_again(pid);
            }
            rest_before(look, 50);
        }
        return {};
    }
    // One that somebody has woken, unless it has not even taken the first signal.
    void stop_again(pid_t pid) {
        const auto folder = fmt::format("/proc/{}", pid);
        if (is_pending(folder, "ShdPnd:", SIGSTOP)) return;
        woken_.insert(pid);
        if (before_.erase(pid) != 0) ran_.insert(pid);
        for (const pid_t tid : numbers_in(folder + "/task")) stopped_.erase(tid);
        kill(pid, SIGSTOP);
    }
    // vfork(2): who calls it does not stop before the child is another program or has ended. If the
    // child has been stopped before that, it goes on.
    void let_new_children_go_on(pid_t pid, pid_t tid) {
        const auto status = read_status(fmt::format("/proc/{}/task/{}", pid, tid));
        if (!status || status->state != 'D') return;
        for (const pid_t child : children_of(pid)) let_go_on(child);
    }
    // A traced one stops for its tracer, and for nobody else before that has let it: one of the
    // tree itself that is stopped never does.
    void let_tracer_go_on(const TaskStatus& status) {
        if (status.state == 't') let_go_on(status.tracer);
    }
    // It is to be told again.
    void let_go_on(pid_t pid) {
        if (ours_.erase(pid) == 0) return;
        told_.erase(pid);
        std::erase_if(stopped_, [pid](pid_t tid) { return tid == pid; });
        kill(pid, SIGCONT);
    }
    static std::string why_not(const TaskStatus& status) {
        if (status.tracer != 0) {
            const auto tracer = read_status(fmt::format("/proc/{}", status.tracer));
            return fmt::format("it is traced by {} {}, which does not let it stop",
                               tracer ? tracer->name : "process", status.tracer);
        }
        if (status.state == 'D')
            return "it waits in the kernel, for a disk or a network file system, and takes no "
                   "signal";
        if (status.state == 'R') return "it has had no processor since it was told to stop";
        return fmt::format("it was told to stop, and does not (state {})", status.state);
    }

    static constexpr int64_t patience_us = 2'000;
    static constexpr size_t many_threads = 32;
    const int64_t deadline_us_;
    std::set<pid_t> told_;
    std::set<pid_t> ours_;  // those that ran before
    std::set<pid_t> before_, ran_;
    std::map<pid_t, int> numbers_;
    std::set<pid_t> stopped_;  // threads
    std::set<pid_t> woken_;
};

// Not without the note; it only takes longer then.
void raise(pid_t root, const Placements& threads) {
    auto noted = note_placements(root, threads);
    if (noted.ok())
        raise_priority(threads);
    else
        log::debug("freeze: {}", noted.error().message());
}

// It was to end with the stop.
bool is_on_socket_again(const user_regs_struct& registers) {
    return static_cast<long>(registers.rax) == restart_no_hand &&
           may_wait_on_socket(static_cast<long>(registers.orig_rax));
}

}  // namespace

Result<StoppedTree> StoppedTree::stop(pid_t root, int64_t limit_us, Note which) {
    Stopping stopping(monotonic_us() + limit_us);
    Waits waits;
    StoppedTree out;
    std::optional<Frozen> frozen;  // by a killed one
    for (bool all = false; !all;) {
        auto tasks = list_tree(root);
        if (!tasks) return tasks.error();
        all = true;
        if (stopping.all().empty()) frozen = give_back(root, *tasks);  // what a killed one took
        for (const auto& task : *tasks) {
            if (task.state == 'Z' || stopping.knows(task)) continue;
            waits.look(task.pid);
            stopping.tell(task, frozen && !frozen->stopped.contains(task.pid));
            all = false;  // it may have made another one meanwhile
            add_placements(task.pid, stopping.was_stopped(task.pid), out.placements_);
        }
        // Only now: one that computes in that class would not let us on its processor again.
        if (!all) raise(root, out.placements_);
        GHOST_TRY(stopping.wait());
        out.tasks_ = std::move(*tasks);
    }
    if (complete(stopping.numbers(), out.placements_)) raise(root, out.placements_);
    waits.confirm();
    for (auto left = stopping.all(); !left.empty();) {
        std::erase_if(out.processes_, [&](const auto& noted) { return left.contains(noted.pid); });
        for (const pid_t pid : left) {
            auto process = note(pid, waits, which);
            if (!process) return process.error();
            out.processes_.push_back(std::move(*process));
        }
        // Each has been woken to be stopped once more; CRIU waits for ever for one that it seizes
        // on the way there, since it takes one stop for two.
        stopping.all_were_woken();
        auto woken = stopping.wait();
        if (!woken) return woken.error();
        left = std::move(*woken);
        for (const pid_t pid : left) waits.forget(pid);
    }
    if (!stopping.ran_after_all().empty()) {
        for (const pid_t pid : stopping.ran_after_all()) out.note_running(pid);
        raise(root, out.placements_);
    }
    auto noted = out.placements_;
    const auto on_sockets = out.note_waits(waits, frozen.value_or(Frozen()).waits);
    if (on_sockets.empty()) return out;
    keep_waits(on_sockets, noted);
    if (auto again = note_placements(root, noted); !again.ok())
        log::warning("{}", again.error().message());
    return out;
}

Status StoppedTree::program_lives() const {
    const bool has_program = tasks_.size() > 1 && tasks_.front().name == "ghost-init";
    const size_t looked_at = has_program ? 2 : 1;  // the init, and its oldest child
    for (size_t i = 0; i < looked_at; ++i) {
        const auto status = read_status(fmt::format("/proc/{}", tasks_.at(i).pid));
        if (!status || status->state == 'Z' || status->state == 'X')
            return make_error(Code::not_found, "freeze process", std::to_string(tasks_[i].pid),
                              "it has been killed");
    }
    return {};
}

void StoppedTree::note_running(pid_t pid) {
    const auto tids = numbers_in(fmt::format("/proc/{}/task", pid));
    for (auto& one : placements_)
        if (std::ranges::find(tids, one.tid) != tids.end()) one.stopped = false;
}

// Those on sockets; a killed freeze has noted some of them `before`.
SocketWaits StoppedTree::note_waits(const Waits& waits, const SocketWaits& before) {
    std::map<pid_t, Placement*> by_number;
    for (auto& one : placements_) by_number[one.tid] = &one;
    SocketWaits on_sockets;
    for (const auto& process : processes_)
        for (const auto& thread : process.threads) {
            const auto placement = by_number.find(thread.tid);
            if (placement == by_number.end()) continue;
            auto& wait_ns = placement->second->wait_ns;
            wait_ns = left_of_duration(waits, process.pid, thread.tid, thread.registers);
            const int64_t now = monotonic_ns();
            if (!is_on_socket_again(thread.registers)) continue;
            if (const auto known = before.find(thread.tid); known != before.end() && wait_ns == 0)
                wait_ns = std::max<int64_t>(1, known->second - now);
            if (wait_ns > 0) on_sockets[thread.tid] = now + wait_ns;
        }
    return on_sockets;
}

// Works on one process whose tasks are all stopped and not traced.
class StoppedTree::Surgeon {
  public:
    explicit Surgeon(const Process& before) : before_(before) {}

    Status operate() {
        if (!before_.begin.empty() &&
            read_memory(before_.pid, before_.code, begin_bytes) != before_.begin)
            GHOST_TRY(write_memory(before_.pid, before_.code, before_.begin));
        blobs_ = mappings_in(maps_of(before_.pid), blob);
        for (const auto& thread : before_.threads) GHOST_TRY(heal(thread));
        return tidy();
    }

  private:
    bool in_blob(uint64_t address) const {
        return std::any_of(blobs_.begin(), blobs_.end(), [address](const Mapping& m) {
            return address >= m.start && address < m.end;
        });
    }
    bool foreign(uint64_t address) const {
        return in_blob(address) ||
               (address >= before_.code && address < before_.code + begin_bytes);
    }

    Status heal(const Thread& thread) {
        const Seized task(thread.tid);
        if (!task.held()) return trace_error("seize", thread.tid);
        trace(PTRACE_SETOPTIONS, thread.tid, 0, reinterpret_cast<void*>(PTRACE_O_TRACESYSGOOD));
        if (is_pending(fmt::format("/proc/{}", thread.tid), "SigPnd:", SIGTRAP)) {
            auto status = task.go(PTRACE_CONT);  // to its delivery; settle() drops it
            if (!status) return status.error();
        }
        GHOST_TRY(task.settle());
        auto now = task.registers();
        if (!now) return now.error();
        // CRIU's code in the main thread gives back what it holds when it finds its socket closed.
        if (thread.tid == before_.pid && in_blob(now->rip)) {
            if (auto left = leave_blob(task, thread.registers); !left.ok())
                log::warning("repair: {}", left.error().message());
            GHOST_TRY(task.settle());
            now = task.registers();
            if (!now) return now.error();
        }
        if (foreign(now->rip)) GHOST_TRY(task.set_registers(thread.registers));
        return set_rest(thread);
    }

    static Status set_rest(const Thread& thread) {
        auto extended = thread.extended;
        auto mask = thread.signal_mask;
        iovec part{extended.data(), extended.size()};
        if (trace(PTRACE_SETREGSET, thread.tid, NT_X86_XSTATE, &part) != 0 ||
            trace(PTRACE_SETSIGMASK, thread.tid, sizeof mask, &mask) != 0)
            return trace_error("set", thread.tid);
        return {};
    }

    // To its end. rt_sigreturn makes the kernel forget how much time is left to a call that it
    // would go on with: where there is one that is left out, and heal() puts the registers right.
    static Status leave_blob(const Seized& task, const user_regs_struct& before) {
        const bool keep = static_cast<long>(before.orig_rax) >= 0 &&
                          static_cast<long>(before.rax) == restart_block;
        for (int i = 0; i < most_stops; i++) {
            auto status = task.go(PTRACE_SYSCALL);
            if (!status) return status.error();
            auto registers = task.registers();
            if (!registers) return registers.error();
            if (!is_syscall_stop(*status) || registers->orig_rax != SYS_rt_sigreturn) continue;
            if (keep) {
                registers->orig_rax = ~uint64_t{0};  // no call
                GHOST_TRY(task.set_registers(*registers));
            }
            auto after = task.go(PTRACE_SYSCALL);
            if (!after) return after.error();
            return {};
        }
        return make_error(Code::internal, "end CRIU's code in process", std::to_string(task.tid()));
    }

    // What CRIU mapped, opened and made readable.
    Status tidy() {
        const auto files = foreign_files();
        std::vector<Mapping> changed;
        const auto now = mappings_in(maps_of(before_.pid));
        for (const auto& old : mappings_in(before_.maps)) {
            const bool same = std::any_of(now.begin(), now.end(), [&](const Mapping& m) {
                return m.start <= old.start && m.end >= old.end && m.access == old.access;
            });
            if (!same && old.access.starts_with("---")) changed.push_back(old);
        }
        if (blobs_.empty() && files.empty() && changed.empty()) return {};
        const Seized task(before_.pid);
        if (!task.held()) return trace_error("seize", before_.pid);
        trace(PTRACE_SETOPTIONS, before_.pid, 0, reinterpret_cast<void*>(PTRACE_O_TRACESYSGOOD));
        GHOST_TRY(task.settle());
        for (const auto& map : blobs_)
            GHOST_TRY(call(task, SYS_munmap, map.start, map.end - map.start, 0));
        for (const int file : files)
            GHOST_TRY(call(task, SYS_close, static_cast<uint64_t>(file), 0, 0));
        for (const auto& map : changed)
            GHOST_TRY(call(task, SYS_mprotect, map.start, map.end - map.start,
                           static_cast<uint64_t>(protection(map.access))));
        return {};
    }

    std::vector<int> foreign_files() const {
        std::vector<int> out;
        std::error_code ignored;
        const auto folder = fmt::format("/proc/{}/fd", before_.pid);
        for (const auto& file : std::filesystem::directory_iterator(folder, ignored))
            if (std::filesystem::read_symlink(file, ignored).string().find(blob) !=
                std::string::npos)
                out.push_back(std::stoi(file.path().filename()));
        return out;
    }

    // One system call in the process, in the place where CRIU makes them too.
    Status call(const Seized& task, long number, uint64_t a, uint64_t b, uint64_t c) const {
        auto registers = task.registers();
        if (!registers) return registers.error();
        user_regs_struct ours = *registers;
        ours.rip = before_.code;
        ours.rax = static_cast<uint64_t>(number);
        ours.orig_rax = ~uint64_t{0};
        ours.rdi = a;
        ours.rsi = b;
        ours.rdx = c;
        GHOST_TRY(write_memory(before_.pid, before_.code, "\x0f\x05"));
        Status status = task.set_registers(ours);
        for (int i = 0; i < 2 && status.ok(); i++)
            if (auto stop = task.go(PTRACE_SYSCALL); !stop) status = stop.error();
        GHOST_TRY(write_memory(before_.pid, before_.code, before_.begin));
        GHOST_TRY(task.set_registers(*registers));
        GHOST_TRY(task.settle());
        return status;
    }

    const Process& before_;
    std::vector<Mapping> blobs_;
};

const std::string* StoppedTree::maps(pid_t pid) const {
    const auto found = std::ranges::find(processes_, pid, &Process::pid);
    return found == processes_.end() || found->maps.empty() ? nullptr : &found->maps;
}

Status StoppedTree::repair() {
    Status first;
    for (const auto& process : processes_) {
        if (auto status = Stopping(monotonic_us() + second_us, {process.pid}).wait(); !status.ok())
            log::warning("{}", status.error().message());
        if (auto status = Surgeon(process).operate(); !status.ok() && first.ok()) first = status;
    }
    return first;
}

SocketWaits take_up_waits(const std::vector<Task>& tasks, const Placements& threads) {
    std::map<int, int64_t> waits;
    SocketWaits on_sockets;
    for (const auto& one : threads)
        if (one.wait_ns > 0) waits[one.inner] = one.wait_ns;
    if (waits.empty()) return on_sockets;
    for (const auto& task : tasks) {
        const auto folder = fmt::format("/proc/{}/task", task.pid);
        for (const pid_t tid : numbers_in(folder)) {
            const auto status = read_status(fmt::format("{}/{}", folder, tid));
            const auto wait = status ? waits.find(status->numbers.back()) : waits.end();
            if (wait == waits.end()) continue;
            const Seized thread(tid);
            if (!thread.held()) continue;
            if (const auto now = thread.registers();
                now && may_wait_on_socket(static_cast<long>(now->rax))) {
                on_sockets[tid] = monotonic_ns() + wait->second;
                continue;
            }
            trace(PTRACE_SETOPTIONS, tid, 0, reinterpret_cast<void*>(PTRACE_O_TRACESYSGOOD));
            const auto taken =
                take_up_wait(tid, wait->second, [&](int request) { return thread.go(request); });
            if (!taken.ok()) log::warning("a wait begins anew: {}", taken.error().message());
        }
    }
    return on_sockets;
}

}  // namespace ghost::core
