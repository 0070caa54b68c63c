// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/socket_waits.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <elf.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/pidfd.hpp"
#include "base/proc.hpp"

namespace ghost::core {
namespace {

using Register = unsigned long long user_regs_struct::*;

constexpr int64_t second_us = 1000000, microsecond_ns = 1000;
constexpr int64_t limit_us = second_us / 5;  // for a thread to begin its call
constexpr int most_stops = 16;               // on the way there
constexpr int quick_looks = 200;
constexpr int syscall_stop = SIGTRAP | 0x80;
constexpr long interrupted = -514;  // ERESTARTNOHAND of linux/errno.h: the call is made again

struct SocketCall {
    long call;
    Register socket;
    int option;
};
constexpr Register first = &user_regs_struct::rdi, third = &user_regs_struct::rdx;
constexpr std::array<SocketCall, 18> calls = {{
    {SYS_recvfrom, first, SO_RCVTIMEO},
    {SYS_recvmsg, first, SO_RCVTIMEO},
    {SYS_recvmmsg, first, SO_RCVTIMEO},
    {SYS_read, first, SO_RCVTIMEO},
    {SYS_readv, first, SO_RCVTIMEO},
    {SYS_preadv2, first, SO_RCVTIMEO},
    {SYS_accept, first, SO_RCVTIMEO},
    {SYS_accept4, first, SO_RCVTIMEO},
    {SYS_splice, first, SO_RCVTIMEO},
    {SYS_sendto, first, SO_SNDTIMEO},
    {SYS_sendmsg, first, SO_SNDTIMEO},
    {SYS_sendmmsg, first, SO_SNDTIMEO},
    {SYS_write, first, SO_SNDTIMEO},
    {SYS_writev, first, SO_SNDTIMEO},
    {SYS_pwritev2, first, SO_SNDTIMEO},
    {SYS_connect, first, SO_SNDTIMEO},
    {SYS_sendfile, first, SO_SNDTIMEO},
    {SYS_splice, third, SO_SNDTIMEO},
}};

Fd descriptor_of(pid_t pid, int number) {
    const Fd process = open_pidfd(pid);
    return Fd(process ? static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), number, 0)) : -1);
}

bool set_limit(const Fd& socket, int option, int64_t us) {
    const timeval time{us / second_us, us % second_us};
    return setsockopt(socket.get(), SOL_SOCKET, option, &time, sizeof time) == 0;
}

}  // namespace

bool may_wait_on_socket(long call) {
    return std::ranges::find(calls, call, &SocketCall::call) != calls.end();
}

std::optional<SocketLimit> SocketLimit::of(pid_t pid, long call,
                                           const user_regs_struct& arguments) {
    for (const auto& one : calls) {
        if (one.call != call) continue;
        SocketLimit out;
        out.socket_ = descriptor_of(pid, static_cast<int>(arguments.*one.socket));
        out.option_ = one.option;
        timeval time{};
        socklen_t size = sizeof time;
        if (!out.socket_ ||
            getsockopt(out.socket_.get(), SOL_SOCKET, one.option, &time, &size) != 0)
            continue;
        out.full_us_ = time.tv_sec * second_us + time.tv_usec;
        if (out.full_us_ > 0) return out;
    }
    return std::nullopt;
}

int64_t SocketLimit::ns() const {
    return full_us_ * microsecond_ns;
}

bool SocketLimit::shorten(int64_t ns) const {
    const int64_t us = (ns + microsecond_ns - 1) / microsecond_ns;
    return set_limit(socket_, option_, std::clamp<int64_t>(us, 1, full_us_));
}

bool SocketLimit::give_back() const {
    return set_limit(socket_, option_, full_us_);
}

namespace {

// A thread on its way into its call.
class Beginner {
  public:
    Beginner(pid_t pid, pid_t tid) : pid_(pid), tid_(tid), deadline_(monotonic_us() + limit_us) {}

    void begin(int64_t end_ns) const {
        user_regs_struct now{};
        if (!read(now) && !(stop() && read(now))) return;
        const uint64_t behind = static_cast<long>(now.rax) == interrupted ? now.rip : now.rip + 2;
        if (!to_call() || !read(now) || now.rip != behind) return;
        const auto limit = SocketLimit::of(pid_, static_cast<long>(now.orig_rax), now);
        if (!limit) return;
        if (limit->shorten(end_ns - monotonic_ns()) && go(0)) wait_for_sleep();
        limit->give_back();
    }

  private:
    bool trace(int request, uint64_t address, void* data) const {
        return syscall(SYS_ptrace, request, tid_, address, data) == 0;
    }
    bool read(user_regs_struct& to) const {
        iovec part{&to, sizeof to};
        return trace(PTRACE_GETREGSET, NT_PRSTATUS, &part);
    }
    bool go(int signal) const {
        return trace(PTRACE_SYSCALL, 0, reinterpret_cast<void*>(static_cast<uint64_t>(signal)));
    }

    // Its next stop for this tracer, as of wait4(2), unless `enough` is true before.
    template <typename Enough>
    std::optional<int> stop_or(Enough enough) const {
        for (int look = 0; monotonic_us() < deadline_; look++) {
            int status = 0;
            const pid_t got = waitpid(tid_, &status, __WALL | WNOHANG);
            if (got == tid_ && WIFSTOPPED(status)) return status;
            if (got != 0 || enough()) break;
            if (look < quick_looks)
                sched_yield();
            else
                usleep(20);
        }
        return std::nullopt;
    }
    std::optional<int> stop() const {
        return stop_or([] { return false; });
    }

    // Signals on the way are delivered; a handler of one makes other calls, or ends this one.
    bool to_call() const {
        int signal = 0;
        for (int i = 0; i < most_stops && go(signal); i++) {
            const auto status = stop();
            if (!status) return false;
            if (*status >> 8 == syscall_stop) return true;
            const bool is_event = *status >> 16 != 0;
            if (is_event && WSTOPSIG(*status) != SIGTRAP) return false;  // it is to be stopped
            signal = is_event ? 0 : WSTOPSIG(*status);
        }
        return false;
    }

    void wait_for_sleep() const {
        const auto status = stop_or([this] {
            const auto task = read_status(fmt::format("/proc/{}", tid_));
            return !task || task->state == 'S';
        });
        if (!status || *status >> 8 == syscall_stop || *status >> 16 != 0) return;
        trace(PTRACE_DETACH, 0, reinterpret_cast<void*>(static_cast<uint64_t>(WSTOPSIG(*status))));
    }

    const pid_t pid_, tid_;
    const int64_t deadline_;
};

}  // namespace

void begin_again(pid_t pid, pid_t tid, int64_t end_ns) {
    Beginner(pid, tid).begin(end_ns);
}

}  // namespace ghost::core
