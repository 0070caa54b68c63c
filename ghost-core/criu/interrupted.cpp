// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/interrupted.hpp"

#include <algorithm>
#include <array>
#include <climits>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/uio.h>

namespace ghost::core {
namespace {

constexpr std::array<long, 4> may_go_on = {SYS_poll, SYS_nanosleep, SYS_clock_nanosleep, SYS_futex};
constexpr uint8_t mov_eax = 0xb8;         // and a number of 32 bits
constexpr uint32_t most_files = 1 << 20;  // of a poll that is believed
constexpr uint32_t most_flags = 1 << 9;   // FUTEX_CLOCK_REALTIME is the highest one
constexpr int last_clock = 15;            // MAX_CLOCKS of Linux; below zero are those of processes
constexpr uint64_t lowest_address = 4096;

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

}  // namespace ghost::core
