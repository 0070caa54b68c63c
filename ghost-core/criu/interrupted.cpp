// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/interrupted.hpp"

#include <algorithm>
#include <array>
#include <climits>
#include <cstdint>
#include <cstring>
#include <csignal>
#include <ctime>
#include <elf.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "ghost-core/memory/injection.hpp"

namespace ghost::core {
namespace {

constexpr std::array<long, 4> may_go_on = {SYS_poll, SYS_nanosleep, SYS_clock_nanosleep, SYS_futex};
constexpr uint8_t mov_eax = 0xb8;         // and a number of 32 bits
constexpr uint32_t most_files = 1 << 20;  // of a poll that is believed
constexpr uint32_t most_flags = 1 << 9;   // FUTEX_CLOCK_REALTIME is the highest one
constexpr int last_clock = 15;            // MAX_CLOCKS of Linux; below zero are those of processes
constexpr uint64_t lowest_address = 4096;
constexpr uint64_t red_zone = 128;  // below the stack pointer (System V ABI, 3.2.2)
constexpr int64_t second_ns = 1000000000, millisecond_ns = 1000000;
constexpr int most_stops = 16;  // on the way through one call; more is a bug
constexpr int syscall_stop = SIGTRAP | 0x80;

bool peek(pid_t tid, uint64_t address, void* to, size_t size) {
    const iovec local{to, size}, remote{reinterpret_cast<void*>(address), size};
    return process_vm_readv(tid, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
}

bool is_time(pid_t tid, uint64_t address) {
    timespec time{};
    return peek(tid, address, &time, sizeof time) && time.tv_sec >= 0 && time.tv_nsec >= 0 &&
           time.tv_nsec < 1000000000 && (time.tv_sec != 0 || time.tv_nsec != 0);
}

// Whether the arguments can be those of the call.
bool may_be(pid_t tid, const user_regs_struct& r, long call) {
    const auto second = static_cast<uint32_t>(r.rsi);
    char byte = 0;
    switch (call) {
        case SYS_poll:  // files, their number, ms
            return r.rdx != 0 && r.rdx <= INT_MAX && second <= most_files &&
                   (r.rdi != 0 ? r.rdi >= lowest_address : second == 0);
        case SYS_nanosleep:  // time, rest
            return is_time(tid, r.rdi) && (r.rsi == 0 || peek(tid, r.rsi, &byte, 1));
        case SYS_clock_nanosleep:  // clock, flags, time, rest
            return static_cast<int>(r.rdi) <= last_clock && second == 0 && is_time(tid, r.rdx);
        case SYS_futex: {  // word, operation, value, time
            const auto operation = second & static_cast<uint32_t>(FUTEX_CMD_MASK);
            return r.rdi != 0 && r.rdi % 4 == 0 && second < most_flags &&
                   (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET) &&
                   is_time(tid, r.r10);
        }
        default:
            return false;
    }
}

// The last of them whose number is loaded just before the call; -1: none.
long seen_in_code(pid_t tid, uint64_t end) {
    std::array<uint8_t, 32> code{};
    if (!peek(tid, end - code.size(), code.data(), code.size())) return -1;
    for (size_t at = code.size() - 7 + 1; at-- > 0;) {
        int32_t number = 0;
        std::memcpy(&number, &code[at + 1], sizeof number);
        if (code[at] == mov_eax &&
            std::find(may_go_on.begin(), may_go_on.end(), number) != may_go_on.end())
            return number;
    }
    return -1;
}

// Where the time of such a call is, if not in a register; 0: in none.
uint64_t time_of(const user_regs_struct& registers, long call) {
    switch (call) {
        case SYS_nanosleep:
            return registers.rdi;
        case SYS_clock_nanosleep:
            return registers.rdx;
        default:
            return registers.r10;
    }
}

}  // namespace

long interrupted_call(pid_t tid, const user_regs_struct& registers) {
    const auto call = static_cast<long>(registers.orig_rax);
    if (call != SYS_restart_syscall) return call < 0 ? -1 : call;
    if (const long seen = seen_in_code(tid, registers.rip); seen >= 0)
        return may_be(tid, registers, seen) ? seen : -1;
    // By syscall(3). A futex mostly still has the value for which it is waited.
    uint32_t word = 0;
    if (may_be(tid, registers, SYS_futex) && peek(tid, registers.rdi, &word, sizeof word) &&
        word == static_cast<uint32_t>(registers.rdx))
        return SYS_futex;
    long found = -1;
    for (const long one : may_go_on)
        if (may_be(tid, registers, one)) {
            if (found >= 0) return -1;
            found = one;
        }
    return found;
}

namespace {

std::optional<int64_t> asked_duration(pid_t tid, const user_regs_struct& registers) {
    if (static_cast<long>(registers.rax) != restart_block) return std::nullopt;
    const long call = interrupted_call(tid, registers);
    if (call < 0 || !may_be(tid, registers, call)) return std::nullopt;
    if (call == SYS_poll) return static_cast<int64_t>(registers.rdx) * millisecond_ns;
    const auto operation =
        static_cast<uint32_t>(registers.rsi) & static_cast<uint32_t>(FUTEX_CMD_MASK);
    timespec time{};
    if ((call == SYS_futex && operation != FUTEX_WAIT) ||  // until a time
        !peek(tid, time_of(registers, call), &time, sizeof time) ||
        time.tv_sec >= INT64_MAX / second_ns)
        return std::nullopt;
    return time.tv_sec * second_ns + time.tv_nsec;
}

}  // namespace

// Never more than was asked for: then what was found is not the timer of this wait.
int64_t left_of_duration(const Waits& waits, pid_t pid, pid_t tid,
                         const user_regs_struct& registers) {
    if (const auto left = waits.left_on_socket_ns(pid, tid, registers))
        return std::max<int64_t>(1, *left);
    const auto left = waits.left_ns(tid);
    const auto asked = left ? asked_duration(tid, registers) : std::nullopt;
    return asked && *left <= *asked ? std::max<int64_t>(1, *left) : 0;
}

// What the arguments may point to, the place of a shortened time, the instruction, and what the
// kernel notes on the way back to it.
PageRuns memory_of_wait(pid_t tid, const user_regs_struct& registers) {
    constexpr uint64_t page = 4096, most_bytes = sizeof(timespec);
    PageRuns out;
    const auto add = [&out](uint64_t start, uint64_t bytes) {
        if (bytes == 0 || start < lowest_address || start > UINT64_MAX / 2) return;
        const uint64_t first = start / page * page;
        out.push_back({first, (start + bytes - first + page - 1) / page * page});
    };
    add(registers.rdi, interrupted_call(tid, registers) == SYS_poll
                           ? std::min<uint64_t>(registers.rsi, most_files) * sizeof(pollfd)
                           : most_bytes);
    for (const uint64_t argument : {registers.rsi, registers.rdx, registers.r10})
        add(argument, most_bytes);
    add(registers.rsp - red_zone - 2 * sizeof(timespec), red_zone + 2 * sizeof(timespec));
    add(registers.rip - 2, 2);
    const auto area = restartable_area(tid);
    add(area.start, area.bytes);
    make_set(out);
    return out;
}

namespace {

// One thread on its way through take_up_wait().
class WaitTaker {
  public:
    WaitTaker(pid_t tid, const std::function<Result<int>(int)>& go) : tid_(tid), go_(go) {}

    Status take_up(int64_t left_ns) {
        uint64_t all = ~uint64_t{0};  // a handler must not run on our registers
        if (!trace(PTRACE_GETSIGMASK, sizeof mask_, &mask_) || !read(before_))
            return trouble("read");
        const auto call = static_cast<long>(before_.rax);
        if (std::find(may_go_on.begin(), may_go_on.end(), call) == may_go_on.end()) return {};
        auto ours = before_;
        if (!shorten(ours, call, left_ns)) return trouble("write");
        auto after = before_;
        Status status;
        if (!trace(PTRACE_SETSIGMASK, sizeof all, &all) || !write(ours))
            status = trouble("set");
        else
            status = interrupt_in_call(after, call);
        GHOST_TRY(give_back(after));
        return status;
    }

  private:
    Error trouble(const char* what) const {
        return sys_error(std::string(what) + " thread", std::to_string(tid_));
    }
    bool trace(int request, uint64_t address, void* data) const {
        return syscall(SYS_ptrace, request, tid_, address, data) == 0;
    }
    bool read(user_regs_struct& to) const {
        iovec part{&to, sizeof to};
        return trace(PTRACE_GETREGSET, NT_PRSTATUS, &part);
    }
    bool write(user_regs_struct from) const {
        iovec part{&from, sizeof from};
        return trace(PTRACE_SETREGSET, NT_PRSTATUS, &part);
    }
    bool poke(const timespec& time) const {
        auto copy = time;
        const iovec local{&copy, sizeof copy}, remote{reinterpret_cast<void*>(at_), sizeof copy};
        return process_vm_writev(tid_, &local, 1, &remote, 1, 0) == sizeof copy;
    }

    // The time is put below the stack for as long as this takes.
    bool shorten(user_regs_struct& registers, long call, int64_t left_ns) {
        if (call == SYS_poll) {
            const int64_t left = (left_ns + millisecond_ns - 1) / millisecond_ns;
            registers.rdx = static_cast<uint64_t>(std::min<int64_t>(left, INT_MAX));
            return true;
        }
        const uint64_t at = (registers.rsp - red_zone - sizeof(timespec)) & ~uint64_t{15};
        if (!peek(tid_, at, &there_, sizeof there_)) return false;
        at_ = at;
        (call == SYS_nanosleep         ? registers.rdi
         : call == SYS_clock_nanosleep ? registers.rdx
                                       : registers.r10) = at;
        return poke({left_ns / second_ns, left_ns % second_ns});
    }

    // The call begins with the interruption already there, and so ends at once.
    Status interrupt_in_call(user_regs_struct& after, long call) {
        GHOST_TRY(to(syscall_stop));
        if (!trace(PTRACE_INTERRUPT, 0, nullptr)) return trouble("stop");
        GHOST_TRY(to(syscall_stop));
        user_regs_struct now{};
        if (!read(now)) return trouble("read");
        const auto answer = static_cast<long>(now.rax);
        const bool over = answer == (call == SYS_futex ? -ETIMEDOUT : 0);
        // Any other answer is there at once the second time, too.
        if (answer == restart_block || over) {
            after.rip += 2;
            after.rax = now.rax;
            if (!over) after.orig_rax = static_cast<uint64_t>(call);
        }
        return {};
    }

    Status to(int signal) const {
        for (int i = 0; i < most_stops; i++) {
            auto status = go_(PTRACE_SYSCALL);
            if (!status) return status.error();
            if (*status >> 8 == signal) return {};
        }
        return make_error(Code::internal, "call in thread", std::to_string(tid_));
    }

    // In the stop from which the kernel decides about an interrupted call.
    Status give_back(const user_regs_struct& after) const {
        if (at_ != 0) poke(there_);
        for (int i = 0; i < most_stops; i++) {
            if (!trace(PTRACE_INTERRUPT, 0, nullptr)) return trouble("stop");
            auto status = go_(PTRACE_CONT);
            if (!status) return status.error();
            if (*status >> 16 != PTRACE_EVENT_STOP) continue;
            auto mask = mask_;
            if (!write(after) || !trace(PTRACE_SETSIGMASK, sizeof mask, &mask))
                return trouble("set");
            return {};
        }
        return make_error(Code::internal, "stop thread", std::to_string(tid_));
    }

    const pid_t tid_;
    const std::function<Result<int>(int)>& go_;
    user_regs_struct before_{};
    uint64_t mask_ = 0;
    uint64_t at_ = 0;   // where the time is put
    timespec there_{};  // what was there
};

}  // namespace

Status take_up_wait(pid_t tid, int64_t left_ns, const std::function<Result<int>(int)>& go) {
    return WaitTaker(tid, go).take_up(left_ns);
}

}  // namespace ghost::core
