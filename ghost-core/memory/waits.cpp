// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/waits.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <elf.h>
#include <linux/bpf.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "ghost-core/memory/kernel_iterator.hpp"
#include "ghost-core/memory/kernel_types.hpp"
#include "ghost-core/memory/socket_waits.hpp"

namespace ghost::core {
namespace {

constexpr size_t stack_bytes = 1536;  // of the deepest frames, in which the timer is
constexpr size_t piece_bytes = 256;
constexpr size_t most_levels = 8;  // of PID name spaces that are looked through
constexpr int64_t most_ticks = int64_t{1} << 33;
constexpr long restart_no_hand = -514;         // ERESTARTNOHAND of linux/errno.h
constexpr uint64_t user_code_64 = 0x33;        // cs of a 64-bit task
constexpr uint8_t enqueued = 1;                // HRTIMER_STATE_ENQUEUED of linux/hrtimer.h
constexpr uint32_t interruptible = 1;          // TASK_INTERRUPTIBLE of linux/sched.h
constexpr uint32_t by_signal = 0x4;            // __TASK_STOPPED
constexpr uint32_t stopped = by_signal | 0x8;  // __TASK_TRACED

// A thread's number in one PID name space (struct upid of linux/pid.h).
struct Number {
    int32_t number = 0;
    uint32_t padding = 0;
    uint64_t space = 0;
};

// What the program below says of a thread.
struct Record {
    uint64_t task = 0;  // where it is in the kernel
    int64_t now_ns = 0;
    int64_t now_ticks = 0;  // jiffies
    uint64_t stops = 0;
    uint64_t stack = 0;
    uint64_t credentials = 0, flags = 0;
    uint64_t result = 0, code = 0;  // registers: rax, cs
    uint32_t state = 0, level = 0;
    std::array<Number, most_levels> numbers;
    std::array<uint8_t, stack_bytes> frames;
};
constexpr size_t head_bytes = offsetof(Record, numbers);

struct Places {
    IteratorPlaces iterator;
    uint32_t pid = 0, level = 0, numbers = 0, stops = 0, state = 0, stack = 0;
    uint32_t credentials = 0, flags = 0, result = 0, code = 0;
    uint32_t sleeper_task = 0, earliest = 0, timer_state = 0;
    uint32_t ticking_task = 0, expires = 0, pending = 0;
};

std::optional<Places> find_places() {
    KernelPlaces kernel;
    Places out;
    out.iterator.find(kernel, "task", "task");
    kernel.offset(out.pid, "task_struct", {"thread_pid"});
    kernel.offset(out.level, "pid", {"level"});
    kernel.offset(out.numbers, "pid", {"numbers"});
    kernel.offset(out.stops, "task_struct", {"nvcsw"});
    kernel.offset(out.state, "task_struct", {"__state"});
    kernel.offset(out.stack, "task_struct", {"thread", "sp"});
    kernel.offset(out.credentials, "task_struct", {"cred"});
    kernel.offset(out.flags, "task_struct", {"atomic_flags"});
    kernel.offset(out.result, "pt_regs", {"ax"});
    kernel.offset(out.code, "pt_regs", {"cs"});
    kernel.offset(out.sleeper_task, "hrtimer_sleeper", {"task"});
    kernel.offset(out.earliest, "hrtimer_sleeper", {"timer", "_softexpires"});
    kernel.offset(out.timer_state, "hrtimer_sleeper", {"timer", "state"});
    kernel.offset(out.ticking_task, "process_timer", {"task"});
    kernel.offset(out.expires, "process_timer", {"timer", "expires"});
    kernel.offset(out.pending, "process_timer", {"timer", "entry", "pprev"});
    return kernel.all() ? std::optional(out) : std::nullopt;
}

// For each thread a Record. Registers 6 to 9 are kept over calls.
KernelCode program(const Places& at) {
    constexpr uint8_t task = 7, what = 8, out = 9;
    constexpr int head = -static_cast<int>(head_bytes);
    constexpr int piece = head - static_cast<int>(piece_bytes);
    KernelCode code;
    const auto write_piece = [&](uint32_t offset, size_t size) {
        code.read(piece, size, what, static_cast<int>(offset));
        code.write(out, piece, size);
    };
    const auto in_head = [](size_t field) { return head + static_cast<int>(field); };
    code.begin(at.iterator, task, out);
    code.store(task, in_head(offsetof(Record, task)));
    code.call(BPF_FUNC_ktime_get_ns);
    code.store(0, in_head(offsetof(Record, now_ns)));
    code.call(BPF_FUNC_jiffies64);
    code.store(0, in_head(offsetof(Record, now_ticks)));
    code.load(1, task, at.stops);
    code.store(1, in_head(offsetof(Record, stops)));
    code.load(1, task, at.state, BPF_W);
    code.store(1, in_head(offsetof(Record, state)), BPF_W);
    code.load(1, task, at.stack);
    code.store(1, in_head(offsetof(Record, stack)));
    code.load(1, task, at.credentials);
    code.store(1, in_head(offsetof(Record, credentials)));
    code.load(1, task, at.flags);
    code.store(1, in_head(offsetof(Record, flags)));
    code.copy(1, task);
    code.call(BPF_FUNC_task_pt_regs);
    code.copy(what, 0);
    code.load(1, what, at.result);
    code.store(1, in_head(offsetof(Record, result)));
    code.load(1, what, at.code, BPF_H);
    code.store(1, in_head(offsetof(Record, code)));
    code.load(what, task, at.pid);
    code.leave_if_null(what);
    code.load(1, what, at.level, BPF_W);
    code.store(1, in_head(offsetof(Record, level)), BPF_W);
    code.write(out, head, head_bytes);
    write_piece(at.numbers, sizeof Record::numbers);
    code.load(what, task, at.stack);
    for (size_t done = 0; done < stack_bytes; done += piece_bytes)
        write_piece(static_cast<uint32_t>(done), piece_bytes);
    code.leave();
    return code;
}

// What it takes to load the program and to read its answers.
struct Reader {
    Places places;
    uint64_t own_space = 0;  // the PID name space of this process, as the kernel knows it
};

KeptIterator kept_waits("ghost_waits");

// -1: it cannot be had.
int kept_program(const Places& places) {
    return kept_waits.program(places.iterator.function, [&places] { return program(places); });
}

// Of the threads of a process; nothing if it cannot be looked at.
std::vector<Record> records(int program, pid_t pid) {
    const auto text = iterate(program, pid);
    std::vector<Record> out(text.size() / sizeof(Record));
    if (!out.empty()) std::memcpy(out.data(), text.data(), out.size() * sizeof(Record));
    return out;
}

const Reader* reader() {
    static const auto one = []() -> std::optional<Reader> {
        const auto places = find_places();
        if (!places) return std::nullopt;
        Reader out{*places};
        const auto own = records(kept_program(*places), getpid());
        if (own.empty() || own.front().level >= most_levels) return std::nullopt;
        out.own_space = own.front().numbers[own.front().level].space;
        return out;
    }();
    return one ? &*one : nullptr;
}

pid_t number_here(const Reader& reader, const Record& one) {
    for (size_t i = 0; i <= one.level && i < most_levels; i++)
        if (one.numbers[i].space == reader.own_space) return one.numbers[i].number;
    return 0;
}

uint64_t word(const Record& one, size_t offset) {
    uint64_t out = 0;
    std::memcpy(&out, &one.frames[offset], sizeof out);
    return out;
}

// When the timer that is to wake the thread may expire, by the clock of Record::now_ns.
std::optional<int64_t> end_of(const Places& at, const Record& one) {
    for (size_t i = at.sleeper_task; i + sizeof(uint64_t) <= stack_bytes; i += sizeof(uint64_t)) {
        const size_t timer = i - at.sleeper_task;
        // One that has been put away is not enqueued.
        if (word(one, i) != one.task || one.frames[timer + at.timer_state] != enqueued) continue;
        return static_cast<int64_t>(word(one, timer + at.earliest));
    }
    return std::nullopt;
}

int64_t tick_ns() {
    timespec resolution{};
    clock_getres(CLOCK_MONOTONIC_COARSE, &resolution);
    return resolution.tv_nsec;
}

// The same of a timer that counts in ticks. What is left of another structure says nonsense.
std::optional<int64_t> ticking_end_of(const Places& at, const Record& one) {
    for (size_t i = at.ticking_task; i + sizeof(uint64_t) <= stack_bytes; i += sizeof(uint64_t)) {
        const size_t timer = i - at.ticking_task;
        if (word(one, i) != one.task || word(one, timer + at.pending) == 0) continue;
        const auto left = static_cast<int64_t>(word(one, timer + at.expires)) - one.now_ticks;
        if (left >= 0 && left <= most_ticks) return one.now_ns + left * tick_ns();
    }
    return std::nullopt;
}

}  // namespace

bool Waits::prepare() {
    return reader() != nullptr;
}

std::map<pid_t, int> Waits::stopped_threads(pid_t pid) {
    std::map<pid_t, int> out;
    const auto* by = reader();
    if (by == nullptr) return out;
    for (const auto& one : records(kept_program(by->places), pid))
        if ((one.state & by_signal) != 0 && one.level < most_levels)
            out[number_here(*by, one)] = one.numbers[one.level].number;
    return out;
}

void Waits::look(pid_t pid) {
    const auto* by = reader();
    const auto all = by != nullptr ? records(kept_program(by->places), pid) : std::vector<Record>();
    known_ = !all.empty() && (known_ || processes_.empty());
    processes_.insert(pid);
    for (const auto& one : all) {
        const pid_t tid = number_here(*by, one);
        if ((one.state & (interruptible | stopped)) == 0) continue;
        auto& sleep = sleeps_[tid];
        sleep = {pid, one.stops, std::nullopt, std::nullopt, (one.state & stopped) != 0, false};
        if (sleep.was_stopped) continue;
        const int64_t shift = monotonic_ns() - one.now_ns;
        if (const auto end = end_of(by->places, one)) sleep.end_ns = *end + shift;
        if (const auto end = ticking_end_of(by->places, one)) sleep.socket_end_ns = *end + shift;
    }
}

void Waits::confirm() {
    if (sleeps_.empty()) return;
    const int program = kept_program(reader()->places);
    for (const pid_t pid : processes_) {
        const auto all = records(program, pid);
        for (const auto& one : all) {
            const auto& first = all.front();
            const pid_t tid = number_here(*reader(), one);
            const auto found = sleeps_.find(tid);
            // The stop itself is one more.
            if (found != sleeps_.end() && one.stops > found->second.stops + 1)
                found->second.woken = true;
            const bool has_end =
                found != sleeps_.end() && (found->second.end_ns || found->second.socket_end_ns);
            const bool has_ended = static_cast<long>(one.result) == -EINTR;
            if (number_here(*reader(), first) == pid && one.credentials == first.credentials &&
                one.flags == first.flags && one.code == user_code_64 && !has_end && !has_ended)
                left_alone_.insert(tid);
        }
    }
}

void Waits::forget(pid_t pid) {
    for (const auto& [tid, sleep] : sleeps_)
        if (sleep.pid == pid) left_alone_.erase(tid);
    std::erase_if(sleeps_, [pid](const auto& one) { return one.second.pid == pid; });
}

const Waits::Sleep* Waits::sleep_of(pid_t tid) const {
    const auto found = sleeps_.find(tid);
    return found == sleeps_.end() || found->second.woken ? nullptr : &found->second;
}

std::optional<int64_t> Waits::left_ns(pid_t tid) const {
    const auto* sleep = sleep_of(tid);
    if (sleep == nullptr || !sleep->end_ns) return std::nullopt;
    return std::max<int64_t>(0, *sleep->end_ns - monotonic_ns());
}

// Never more than was asked for: then what was found is not the timer of this wait.
std::optional<int64_t> Waits::left_on_socket_ns(pid_t pid, pid_t tid,
                                                const user_regs_struct& registers) const {
    const auto* sleep = sleep_of(tid);
    if (sleep == nullptr || !sleep->socket_end_ns ||
        static_cast<long>(registers.rax) != restart_no_hand)
        return std::nullopt;
    const auto limit = SocketLimit::of(pid, static_cast<long>(registers.orig_rax), registers);
    const int64_t left = std::max<int64_t>(0, *sleep->socket_end_ns - monotonic_ns());
    return limit && left <= limit->ns() + tick_ns() ? std::optional(left) : std::nullopt;
}

namespace {

using Registers = user_regs_struct;
using Register = unsigned long long Registers::*;

constexpr uint64_t red_zone = 128;  // below the stack pointer (System V ABI, 3.2.2)
constexpr int64_t second_ns = 1000000000, millisecond_ns = 1000000;

// The calls that end with EINTR at a stop. ppoll and pselect6 do where the kernel cannot write what
// is left of their time.
enum class Limit { none, milliseconds, time };
struct Ending {
    long call;
    Limit limit;
    Register where;
};
constexpr std::array<Ending, 10> endings = {{
    {SYS_epoll_wait, Limit::milliseconds, &Registers::r10},
    {SYS_epoll_pwait, Limit::milliseconds, &Registers::r10},
    {SYS_epoll_pwait2, Limit::time, &Registers::r10},
    {SYS_semop, Limit::none, nullptr},
    {SYS_semtimedop, Limit::time, &Registers::r10},
    {SYS_rt_sigtimedwait, Limit::time, &Registers::rdx},
    {SYS_io_getevents, Limit::time, &Registers::r8},
    {SYS_io_pgetevents, Limit::time, &Registers::r8},
    {SYS_ppoll, Limit::time, &Registers::rdx},
    {SYS_pselect6, Limit::time, &Registers::r8},
}};

bool is_limited(const Ending& call, const Registers& registers) {
    if (call.limit == Limit::none) return false;
    const auto value = registers.*call.where;
    return call.limit == Limit::milliseconds ? static_cast<int>(value) >= 0 : value != 0;
}

// Makes the time of the call `left`. One that is given by its address is put where nothing lives:
// below the stack.
bool shorten(pid_t tid, const Ending& call, Registers& registers, int64_t left) {
    if (call.limit == Limit::milliseconds) {
        const int64_t whole = (left + millisecond_ns - 1) / millisecond_ns;
        registers.*call.where = static_cast<uint64_t>(std::min<int64_t>(whole, INT_MAX));
        return true;
    }
    timespec time{left / second_ns, left % second_ns};
    const uint64_t at = (registers.rsp - red_zone - sizeof time) & ~uint64_t{15};
    const iovec ours{&time, sizeof time}, theirs{reinterpret_cast<void*>(at), sizeof time};
    if (process_vm_writev(tid, &ours, 1, &theirs, 1, 0) != sizeof time) return false;
    registers.*call.where = at;
    return true;
}

}  // namespace

void Waits::go_on(pid_t pid, pid_t tid) const {
    Registers registers{};
    iovec part{&registers, sizeof registers};
    if (syscall(SYS_ptrace, PTRACE_GETREGSET, tid, NT_PRSTATUS, &part) != 0 ||
        registers.cs != user_code_64 || static_cast<long>(registers.rax) != -EINTR)
        return;
    const auto number = static_cast<long>(registers.orig_rax);
    const auto call = std::ranges::find(endings, number, &Ending::call);
    const bool on_socket = known_ && SocketLimit::of(pid, number, registers).has_value();
    if (call == endings.end() && !on_socket) return;
    const auto* sleep = sleep_of(tid);
    if (sleep != nullptr && sleep->was_stopped)
        return;  // by somebody else, as that one's stop does
    if (!on_socket && is_limited(*call, registers)) {
        const auto left = left_ns(tid);
        // One that did not sleep when it was looked at has hardly begun.
        const bool is_whole = known_ && sleep == nullptr;
        if (!is_whole && !(left && shorten(tid, *call, registers, *left))) return;
    }
    registers.rax = static_cast<uint64_t>(restart_no_hand);
    syscall(SYS_ptrace, PTRACE_SETREGSET, tid, NT_PRSTATUS, &part);
}

}  // namespace ghost::core
