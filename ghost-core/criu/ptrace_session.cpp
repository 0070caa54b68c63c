// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/ptrace_session.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <optional>
#include <sched.h>
#include <set>
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
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/memory/injection.hpp"

namespace ghost::core {
namespace {

constexpr size_t extended_bytes = 16384;  // the largest XSAVE area known is 11008 bytes
constexpr int64_t call_limit_us = 2000000;
constexpr int most_stops = 64;  // on the way through one call; more is a bug
constexpr int quick_looks = 200;
constexpr int most_signals = 4;  // looked at in one call
constexpr int64_t detach_limit_us = 5000000;
constexpr int64_t kill_limit_us = 5000000;
constexpr int stop_looks = 20000;  // 50 µs each

long trace(int request, pid_t tid, uint64_t address, void* data) {
    return syscall(SYS_ptrace, request, tid, address, data);
}

Error trace_error(const char* what, pid_t tid) {
    return sys_error(fmt::format("{} thread", what), std::to_string(tid));
}

bool is_syscall_stop(int status) {
    return status >> 8 == (SIGTRAP | 0x80);
}

// The next stop of the thread, for us.
Result<int> wait_stop(pid_t tid, int64_t deadline) {
    for (int i = 0;; i++) {
        int status = 0;
        const pid_t got = waitpid(tid, &status, __WALL | WNOHANG);
        if (got == tid && WIFSTOPPED(status)) return status;
        if (got == tid) return make_error(Code::not_found, "hold thread", std::to_string(tid));
        if (got < 0 && errno != EINTR) return trace_error("wait for", tid);
        if (monotonic_us() > deadline)
            return make_error(Code::timeout, "hold thread", std::to_string(tid));
        if (i < quick_looks)
            sched_yield();
        else
            usleep(20);
    }
}

// To the stop of PTRACE_INTERRUPT, which has been asked for; signals on the way are delivered.
// Whether its process is stopped by SIGSTOP or one of its kind (ptrace(2), PTRACE_EVENT_STOP).
Result<bool> settle(pid_t tid, int64_t deadline) {
    for (int i = 0; i < most_stops; i++) {
        auto status = wait_stop(tid, deadline);
        if (!status) return status.error();
        if (*status >> 16 == PTRACE_EVENT_STOP) return WSTOPSIG(*status) != SIGTRAP;
        const auto signal = static_cast<uint64_t>(WSTOPSIG(*status));
        if (trace(PTRACE_CONT, tid, 0, reinterpret_cast<void*>(signal)) != 0)
            return trace_error("continue", tid);
    }
    return make_error(Code::busy, "hold thread", std::to_string(tid));
}

// Where the vDSO has a `syscall` instruction; 0 if it has none.
uint64_t find_syscall(pid_t pid) {
    std::ifstream maps(fmt::format("/proc/{}/maps", pid));
    for (std::string line; std::getline(maps, line);) {
        if (!line.ends_with("[vdso]")) continue;
        unsigned long start = 0, end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx", &start, &end) != 2 || end - start > (1 << 20))
            return 0;
        std::string code(end - start, '\0');
        const Fd memory(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC));
        if (pread(memory.get(), code.data(), code.size(), static_cast<off_t>(start)) !=
            static_cast<ssize_t>(code.size()))
            return 0;
        const auto at = code.find("\x0f\x05");
        return at == std::string::npos ? 0 : start + at;
    }
    return 0;
}

std::optional<user_regs_struct> registers_of(pid_t tid) {
    user_regs_struct out{};
    iovec part{&out, sizeof out};
    if (trace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &part) != 0) return std::nullopt;
    return out;
}

int inner_number(const std::string& folder) {
    const auto status = read_status(folder);
    return status ? status->numbers.back() : 0;
}

// Whether one of the signals that wait for the thread, or for its process, is such a one.
Result<bool> has_waiting(pid_t tid, const auto& is_such) {
    std::array<siginfo_t, most_signals> found;
    for (const uint32_t shared : {0U, 1U})
        for (uint64_t offset = 0;;) {
            struct {
                uint64_t offset;
                uint32_t flags;
                int32_t count;
            } what{offset, shared, most_signals};
            const long count =
                trace(PTRACE_PEEKSIGINFO, tid, reinterpret_cast<uint64_t>(&what), found.data());
            if (count < 0) return trace_error("look at signals of", tid);
            if (std::any_of(found.begin(), found.begin() + count, is_such)) return true;
            if (count < most_signals) break;
            offset += static_cast<uint64_t>(count);
        }
    return false;
}

// As the kernel would when nobody but us has stopped it; a time to wait begins anew.
void make_again(pid_t tid, user_regs_struct& registers) {
    const auto answer = static_cast<long>(registers.rax);
    const bool unfinished = answer == restart_sys || answer == restart_no_intr ||
                            answer == restart_no_hand || answer == restart_block;
    if (static_cast<long>(registers.orig_rax) >= 0 && unfinished) {
        const long call = interrupted_call(tid, registers);
        registers.rax = static_cast<uint64_t>(call >= 0 ? call : -EINTR);
        if (call >= 0) registers.rip -= 2;
    }
    registers.orig_rax = ~uint64_t{0};
}

}  // namespace

PtraceSession::Numbers PtraceSession::numbers(pid_t root) {
    Numbers out;
    auto tasks = list_tree(root);
    if (!tasks) return out;
    for (const auto& task : *tasks) {
        const auto folder = fmt::format("/proc/{}/task", task.pid);
        for (const pid_t tid : numbers_in(folder))
            out[tid] = inner_number(fmt::format("{}/{}", folder, tid));
    }
    return out;
}

Status PtraceSession::seize_new(pid_t root, const Numbers& known, int64_t deadline, bool& any,
                                Waits& waits) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    std::vector<pid_t> fresh;
    for (const auto& task : *tasks) {
        if (task.state == 'Z')
            return make_error(Code::unsupported, "hold process", std::to_string(task.pid),
                              "it has ended and was not waited for");
        auto found = std::find_if(processes_.begin(), processes_.end(),
                                  [&](const Process& p) { return p.pid == task.pid; });
        if (found == processes_.end()) {
            processes_.push_back({task.pid, task.inner, false, {}});
            found = std::prev(processes_.end());
            waits.look(task.pid);
        }
        const auto folder = fmt::format("/proc/{}/task", task.pid);
        for (const pid_t tid : numbers_in(folder)) {
            if (std::any_of(found->threads.begin(), found->threads.end(),
                            [tid](const Thread& t) { return t.tid == tid; }))
                continue;
            if (trace(PTRACE_SEIZE, tid, 0, reinterpret_cast<void*>(PTRACE_O_TRACESYSGOOD)) != 0) {
                if (errno == ESRCH) continue;
                return sys_error("hold thread", std::to_string(tid),
                                 errno == EPERM ? Code::refused : Code::io);
            }
            const auto number = known.find(tid);
            found->threads.push_back({tid, number != known.end()
                                               ? number->second
                                               : inner_number(fmt::format("{}/{}", folder, tid))});
            if (trace(PTRACE_INTERRUPT, tid, 0, nullptr) != 0) return trace_error("stop", tid);
            fresh.push_back(tid);
        }
    }
    for (const pid_t tid : fresh) GHOST_TRY(settle(tid, deadline));
    any = !fresh.empty();
    return {};
}

// Only once all are held: one that is not may stop another one that is, or let it go on, and
// neither /proc nor the stop of that one says so. From one stop to the next nothing is executed.
Result<bool> PtraceSession::is_stopped(const Process& process, int64_t deadline) {
    const pid_t tid = process.threads.front().tid;
    if (trace(PTRACE_INTERRUPT, tid, 0, nullptr) != 0 || trace(PTRACE_CONT, tid, 0, nullptr) != 0)
        return trace_error("stop", tid);
    const auto stopped = settle(tid, deadline);
    if (!stopped || *stopped) return stopped;
    // It has been told, and takes it before anything else.
    for (const auto& thread : process.threads) {
        const auto waits =
            has_waiting(thread.tid, [](const siginfo_t& one) { return one.si_signo == SIGSTOP; });
        if (!waits || *waits) return waits;
    }
    return false;
}

Result<PtraceSession> PtraceSession::take(pid_t root, const Numbers& known, int64_t limit_us) {
    PtraceSession out;
    const int64_t deadline = monotonic_us() + limit_us;
    Waits waits;
    for (bool any = true; any;) GHOST_TRY(out.seize_new(root, known, deadline, any, waits));
    std::erase_if(out.processes_, [](const Process& one) { return one.threads.empty(); });
    for (auto& process : out.processes_) {
        const auto stopped = is_stopped(process, deadline);
        GHOST_TRY(stopped);
        process.stopped = *stopped;
    }
    waits.confirm();
    for (const auto& process : out.processes_)
        for (const auto& thread : process.threads) waits.go_on(process.pid, thread.tid);
    out.waits_ = std::move(waits);
    for (auto& process : out.processes_)
        std::sort(process.threads.begin(), process.threads.end(),
                  [&](const Thread& a, const Thread& b) {
                      return a.tid == process.pid ? b.tid != process.pid
                                                  : b.tid != process.pid && a.tid < b.tid;
                  });
    return out;
}

PtraceSession::PtraceSession(PtraceSession&& other) noexcept
    : processes_(std::move(other.processes_)),
      instructions_(std::move(other.instructions_)),
      waits_(std::move(other.waits_)) {
    other.processes_.clear();
}

PtraceSession::~PtraceSession() {
    let_go();
}

SocketWaits PtraceSession::waits_on_sockets() const {
    SocketWaits out;
    for (const auto& process : processes_)
        for (const auto& thread : process.threads) {
            const auto registers = registers_of(thread.tid);
            const auto left = registers
                                  ? waits_.left_on_socket_ns(process.pid, thread.tid, *registers)
                                  : std::nullopt;
            if (left) out[thread.tid] = monotonic_ns() + *left;
        }
    return out;
}

// A wait on a socket goes on by other means than the end of a trace.
void PtraceSession::let_go() {
    const auto waits = waits_on_sockets();
    if (waits.empty()) return detach();
    std::vector<Task> tasks;
    std::set<pid_t> stopped;
    for (const auto& process : processes_) {
        tasks.push_back({process.pid, process.inner, {}, '?'});
        if (process.stopped) stopped.insert(process.pid);
    }
    leave_stopped([](const Process& process) { return !process.stopped; });
    if (auto status = continue_tasks(tasks, stopped, waits); !status.ok())
        log::warning("{}", status.error().message());
}

// One that has not come to a stop yet (it is in the kernel, and cannot be interrupted there) will,
// and would stay in it: so it is waited for, while all others go on. The limit is for one that
// never comes; it goes on when the calling thread ends.
void PtraceSession::detach() {
    std::vector<pid_t> late;
    for (const auto& process : processes_)
        for (const auto& thread : process.threads)
            if (trace(PTRACE_DETACH, thread.tid, 0, nullptr) != 0 && errno == ESRCH)
                late.push_back(thread.tid);
    processes_.clear();
    const int64_t deadline = monotonic_us() + detach_limit_us;
    for (int i = 0; !late.empty() && monotonic_us() < deadline; i++) {
        std::erase_if(late, [](pid_t tid) {
            int status = 0;
            const pid_t got = waitpid(tid, &status, __WALL | WNOHANG);
            if (got < 0 && errno == EINTR) return false;
            if (got == 0) {
                const auto now = read_status(fmt::format("/proc/{}", tid));
                return !now || now->tracer == 0;  // nobody holds it
            }
            if (got != tid || !WIFSTOPPED(status)) return true;  // it has ended, or was let go
            // A signal that it was stopped for is its own.
            const bool own = status >> 16 == 0 && !is_syscall_stop(status);
            const auto signal = own ? static_cast<uint64_t>(WSTOPSIG(status)) : 0;
            return trace(PTRACE_DETACH, tid, 0, reinterpret_cast<void*>(signal)) == 0;
        });
        if (i < quick_looks)
            sched_yield();
        else
            usleep(50);
    }
}

// Of the threads of one process the first that goes on takes SIGSTOP, before anything else, and
// tells all others to stop; so it goes before them.
void PtraceSession::leave_stopped(const std::function<bool(const Process&)>& which) {
    for (auto& process : processes_) {
        if (which && !which(process)) continue;
        kill(process.pid, SIGSTOP);
        trace(PTRACE_DETACH, process.threads.front().tid, 0, nullptr);
        const auto path = fmt::format("/proc/{}/task/{}", process.pid, process.threads.front().tid);
        for (int i = 0; i < stop_looks; i++) {
            const auto status = read_status(path);
            if (!status || status->state == 'T' || status->state == 'Z') break;
            usleep(50);
        }
        process.threads.erase(process.threads.begin());
    }
    detach();
}

Status PtraceSession::end_with_us() {
    for (const auto& process : processes_)
        for (const auto& thread : process.threads)
            if (trace(PTRACE_SETOPTIONS, thread.tid, 0,
                      reinterpret_cast<void*>(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) != 0)
                return trace_error("hold", thread.tid);
    return {};
}

void PtraceSession::kill_tree() {
    for (auto process = processes_.rbegin(); process != processes_.rend(); ++process)
        kill(process->pid, SIGKILL);
    // All at once: one of the init's threads ends only when all others have been waited for.
    std::vector<pid_t> left;
    for (const auto& process : processes_)
        for (const auto& thread : process.threads) left.push_back(thread.tid);
    const int64_t deadline = monotonic_us() + kill_limit_us;
    const pid_t root = processes_.empty() ? 0 : processes_.front().pid;
    const auto fields = stat_fields(root);  // the second one is its parent
    const bool is_ours = fields.size() > 1 && fields[1] == std::to_string(getpid());
    while (!left.empty() && monotonic_us() < deadline) {
        std::erase_if(left, [root, is_ours](pid_t tid) {
            // The end of a child of this process is for whoever waits for its children.
            siginfo_t ended{};
            if (is_ours && tid == root)
                return waitid(P_PID, static_cast<id_t>(tid), &ended,
                              WEXITED | WNOWAIT | WNOHANG | __WALL) == 0
                           ? ended.si_pid == tid
                           : errno != EINTR;
            int status = 0;
            const pid_t got = waitpid(tid, &status, __WALL | WNOHANG);
            return got < 0 ? errno != EINTR : got == tid && !WIFSTOPPED(status);
        });
        if (!left.empty()) usleep(200);
    }
    processes_.clear();
}

Result<ThreadState> PtraceSession::state(const Thread& thread) const {
    ThreadState out;
    out.inner_tid = thread.inner;
    iovec part{&out.registers, sizeof out.registers};
    if (trace(PTRACE_GETREGSET, thread.tid, NT_PRSTATUS, &part) != 0)
        return trace_error("read", thread.tid);
    out.extended.resize(extended_bytes);
    part = {out.extended.data(), out.extended.size()};
    if (trace(PTRACE_GETREGSET, thread.tid, NT_X86_XSTATE, &part) != 0 ||
        trace(PTRACE_GETSIGMASK, thread.tid, sizeof out.signal_mask, &out.signal_mask) != 0)
        return trace_error("read", thread.tid);
    out.extended.resize(part.iov_len);
    make_again(thread.tid, out.registers);
    return out;
}

std::map<pid_t, PageRuns> PtraceSession::add_waits(Placements& threads) const {
    std::map<pid_t, int64_t> waits;
    std::map<pid_t, PageRuns> memory;
    for (const auto& process : processes_)
        for (const auto& thread : process.threads) {
            const auto registers = registers_of(thread.tid);
            if (!registers) continue;
            const auto left_ns = waits[thread.tid] =
                left_of_duration(waits_, process.pid, thread.tid, *registers);
            if (left_ns == 0) continue;
            auto& pages = memory[process.pid];
            pages = unite(pages, memory_of_wait(thread.tid, *registers));
        }
    for (auto& one : threads) one.wait_ns = waits[one.tid];
    return memory;
}

void PtraceSession::take_up_waits(const Placements& threads) const {
    std::map<int, int64_t> waits;
    for (const auto& one : threads) waits[one.inner] = one.wait_ns;
    for (const auto& process : processes_)
        for (const auto& thread : process.threads) {
            const int64_t left_ns = waits[thread.inner];
            if (left_ns == 0) continue;
            const int64_t deadline = monotonic_us() + call_limit_us;
            const auto taken = take_up_wait(thread.tid, left_ns, [&](int request) -> Result<int> {
                if (trace(request, thread.tid, 0, nullptr) != 0)
                    return trace_error("continue", thread.tid);
                return wait_stop(thread.tid, deadline);
            });
            if (!taken.ok()) log::warning("a wait begins anew: {}", taken.error().message());
        }
}

// In a stopped process SIGSTOP has nothing to do, and goes with SIGCONT; one that has been told to
// stop is a stopped one.
Result<bool> PtraceSession::has_signal(const Thread& thread) const {
    return has_waiting(thread.tid, [](const siginfo_t& one) { return one.si_signo != SIGSTOP; });
}

Status PtraceSession::set_state(const Thread& thread, const ThreadState& state) const {
    auto registers = state.registers;
    auto extended = state.extended;
    auto mask = state.signal_mask;
    iovec part{extended.data(), extended.size()};
    if (trace(PTRACE_SETREGSET, thread.tid, NT_X86_XSTATE, &part) != 0)
        return trace_error("set", thread.tid);
    part = {&registers, sizeof registers};
    if (trace(PTRACE_SETREGSET, thread.tid, NT_PRSTATUS, &part) != 0 ||
        trace(PTRACE_SETSIGMASK, thread.tid, sizeof mask, &mask) != 0)
        return trace_error("set", thread.tid);
    return {};
}

Status PtraceSession::unstop() {
    for (const auto& process : processes_) {
        if (kill(process.pid, SIGCONT) != 0)
            return sys_error("continue process", std::to_string(process.pid));
        // The signal comes with the next step of the process, where call() drops it.
        auto answer = call(process, SYS_getpid);
        if (!answer) return answer.error();
    }
    return {};
}

Result<long> PtraceSession::call(const Process& process, long number, uint64_t a, uint64_t b,
                                 uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    const pid_t tid = process.pid;
    auto& instruction = instructions_[process.pid];
    if (instruction == 0) instruction = find_syscall(process.pid);
    if (instruction == 0)
        return make_error(Code::unsupported, "find system call instruction of process",
                          std::to_string(process.pid));
    user_regs_struct ours{};
    iovec part{&ours, sizeof ours};
    if (trace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &part) != 0) return trace_error("read", tid);
    ours = calling(ours, instruction, number, {a, b, c, d, e, f});
    if (trace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &part) != 0) return trace_error("set", tid);
    const int64_t deadline = monotonic_us() + call_limit_us;
    for (int stops = 0, i = 0; stops < 2; i++) {
        if (i > most_stops) return make_error(Code::internal, "call in", std::to_string(tid));
        if (trace(PTRACE_SYSCALL, tid, 0, nullptr) != 0) return trace_error("continue", tid);
        auto status = wait_stop(tid, deadline);
        if (!status) return status.error();
        if (is_syscall_stop(*status)) stops++;
    }
    if (trace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &part) != 0) return trace_error("read", tid);
    return static_cast<long>(ours.rax);
}

}  // namespace ghost::core
