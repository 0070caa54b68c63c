// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/injection.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <linux/userfaultfd.h>
#include <optional>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/descriptor_message.hpp"
#include "base/lender.hpp"
#include "base/pidfd.hpp"
#include "ghost-core/memory/socket_waits.hpp"
#include "ghost-core/memory/waits.hpp"

namespace ghost::core {
namespace {

constexpr int64_t call_limit_us = 2000000;
constexpr int64_t try_us = 50000;        // for one thread to stop; then another one is tried
constexpr uint64_t user_code_64 = 0x33;  // cs of a 64-bit task
constexpr int get_rseq = 0x420f;         // PTRACE_GET_RSEQ_CONFIGURATION of linux/ptrace.h
constexpr uint32_t least_rseq = 32;      // bytes, rseq(2)
constexpr uint64_t user_mode_only = 1;   // UFFD_USER_MODE_ONLY of linux/userfaultfd.h
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)  // Linux 6.1; the headers here may be older
#endif
constexpr char device_path[] = "/dev/userfaultfd";
constexpr int most_stops = 64;  // on the way through one call; more is a bug

long trace(int request, pid_t tid, uint64_t address, void* data) {
    return syscall(SYS_ptrace, request, tid, address, data);
}

void* as_data(uint64_t number) {
    return reinterpret_cast<void*>(number);
}

// Lines of /proc/PID/status that are needed here.
bool has_seccomp(pid_t tid) {
    std::ifstream in(fmt::format("/proc/{}/status", tid));
    for (std::string line; std::getline(in, line);)
        if (line.starts_with("Seccomp:")) return line.find_first_of("12") != std::string::npos;
    return false;
}

std::vector<pid_t> threads_of(pid_t pid) {
    std::vector<pid_t> out;
    DIR* folder = opendir(fmt::format("/proc/{}/task", pid).c_str());
    if (folder == nullptr) return out;
    while (const auto* entry = readdir(folder))
        if (const int tid = std::atoi(entry->d_name); tid > 0) out.push_back(tid);
    closedir(folder);
    return out;
}

// Address of a `syscall` instruction in the process; 0 if there is none.
uint64_t find_syscall(pid_t pid) {
    const Fd memory(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC));
    std::ifstream maps(fmt::format("/proc/{}/maps", pid));
    uint64_t found = 0;
    for (std::string line; std::getline(maps, line);) {
        unsigned long start = 0, end = 0;
        char access[5] = "";
        if (std::sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, access) != 3) continue;
        const bool vdso = line.ends_with("[vdso]");
        if (access[2] != 'x' || line.ends_with("[vsyscall]") || (found != 0 && !vdso)) continue;
        std::string bytes(std::min<size_t>(end - start, 4 << 20), '\0');
        const auto got = pread(memory.get(), bytes.data(), bytes.size(), static_cast<off_t>(start));
        bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
        if (const auto at = bytes.find("\x0f\x05"); at != std::string::npos) found = start + at;
        if (vdso && found != 0) break;
    }
    return found;
}

// The thread that traces. Everything it holds is let go by the kernel when it ends.
class Surgeon : public HeldThread {
  public:
    Surgeon(pid_t pid, pid_t wanted, int64_t deadline_us)
        : pid_(pid), wanted_(wanted), deadline_(deadline_us) {}

    Status operate(const std::function<Status(HeldThread&)>& work) {
        instruction_ = find_syscall(pid_);
        if (instruction_ == 0)
            return make_error(Code::unsupported, "find system call instruction of process",
                              std::to_string(pid_));
        waits_.look(pid_);
        GHOST_TRY(hold_one());
        waits_.confirm();
        waits_.go_on(pid_, tid_);
        Status status = note();
        if (status.ok()) status = work(*this);
        Status back = give_back();
        return status.ok() ? back : status;
    }

    Result<long> call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                      uint64_t f) override {
        GHOST_TRY(set_registers(calling(saved_, instruction_, number, {a, b, c, d, e, f})));
        touched_ = true;
        for (int stop = 0; stop < 2; stop++) GHOST_TRY(to_syscall_stop());
        user_regs_struct after{};
        iovec part{&after, sizeof after};
        if (trace(PTRACE_GETREGSET, tid_, NT_PRSTATUS, &part) != 0) return trouble("read");
        return static_cast<long>(after.rax);
    }

    pid_t pid() const override { return pid_; }

  private:
    Error trouble(const char* what) const {
        return sys_error(fmt::format("{} thread {} of process", what, tid_), std::to_string(pid_));
    }

    // The one that is wanted; or the leader, or the first other thread that can be stopped.
    Status hold_one() {
        if (wanted_ != 0) return hold(wanted_);
        auto threads = threads_of(pid_);
        std::stable_partition(threads.begin(), threads.end(), [&](pid_t t) { return t == pid_; });
        std::optional<Error> first;
        for (const pid_t tid : threads) {
            auto status = hold(tid);
            if (status.ok()) return status;
            if (!first) first = status.error();
            if (monotonic_us() > deadline_) break;
        }
        return first.value_or(make_error(Code::not_found, "stop process", std::to_string(pid_)));
    }

    Status hold(pid_t tid) {
        tid_ = tid;
        uint64_t options = PTRACE_O_TRACESYSGOOD;
        if (has_seccomp(tid)) options |= PTRACE_O_SUSPEND_SECCOMP;
        if (trace(PTRACE_SEIZE, tid, 0, as_data(options)) != 0)
            return sys_error(fmt::format("stop thread {} of process", tid), std::to_string(pid_),
                             errno == EPERM ? Code::refused : Code::io);
        return settle(std::min(deadline_, monotonic_us() + try_us));
    }

    // Into the stop of PTRACE_INTERRUPT. From there the kernel goes on by the registers as they are
    // then: it restarts an interrupted call, delivers what is pending.
    Status settle(int64_t deadline) {
        if (trace(PTRACE_INTERRUPT, tid_, 0, nullptr) != 0) return trouble("interrupt");
        for (int i = 0; i < most_stops; i++) {
            auto status = wait_stop(deadline);
            if (!status) return status.error();
            if (is_settled(*status)) return {};
            // A signal on its way: it is delivered as without us. Other stops are left.
            const int signal =
                *status >> 8 == SIGTRAP || is_syscall(*status) ? 0 : WSTOPSIG(*status);
            if (trace(PTRACE_CONT, tid_, 0, as_data(static_cast<uint64_t>(signal))) != 0)
                return trouble("continue");
        }
        return make_error(Code::busy, "stop thread", std::to_string(tid_));
    }

    Status note() {
        iovec part{&saved_, sizeof saved_};
        if (trace(PTRACE_GETREGSET, tid_, NT_PRSTATUS, &part) != 0) return trouble("read");
        if (part.iov_len != sizeof saved_ || saved_.cs != user_code_64)
            return make_error(Code::unsupported, "call in process", std::to_string(pid_),
                              "it is not a 64-bit one");
        if (trace(PTRACE_GETSIGMASK, tid_, sizeof mask_, &mask_) != 0) return trouble("read");
        uint64_t all = ~uint64_t{0};  // a handler must not run on our registers
        if (trace(PTRACE_SETSIGMASK, tid_, sizeof all, &all) != 0) return trouble("set");
        masked_ = true;
        abort_restartable_sequence();
        return {};
    }

    // A restartable sequence (rseq(2)) that is left for a call is no longer watched by the kernel;
    // so it is aborted, which the kernel may do at any time.
    void abort_restartable_sequence() {
        const auto area = restartable_area(tid_);
        if (area.bytes == 0) return;
        struct {
            uint32_t version, flags;
            uint64_t start, length, abort;
        } sequence{};
        uint64_t at = 0;
        if (!peek(area.start + 8, &at, sizeof at) || at == 0) return;
        if (!peek(at, &sequence, sizeof sequence)) return;
        if (saved_.rip - sequence.start < sequence.length) saved_.rip = sequence.abort;
    }

    bool peek(uint64_t address, void* to, size_t size) const {
        const iovec local{to, size}, remote{as_data(address), size};
        return process_vm_readv(tid_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
    }

    Status give_back() {
        Status status;
        if (touched_) status = set_registers(saved_);
        if (masked_ && trace(PTRACE_SETSIGMASK, tid_, sizeof mask_, &mask_) != 0)
            status = trouble("set");
        if (touched_ && status.ok()) {
            // Out of the call's stop into one from which the kernel restarts what was interrupted.
            if (trace(PTRACE_INTERRUPT, tid_, 0, nullptr) != 0 ||
                trace(PTRACE_CONT, tid_, 0, nullptr) != 0)
                status = trouble("continue");
            else
                status = settle_again();
        }
        const auto left = waits_.left_on_socket_ns(pid_, tid_, saved_);
        if (status.ok() && left && !is_stopped_)
            begin_again(pid_, tid_, monotonic_ns() + *left);  // the end of this thread lets it go
        else if (trace(PTRACE_DETACH, tid_, 0, nullptr) != 0 && status.ok())
            status = trouble("leave");
        return status;
    }

    Status settle_again() {
        for (int i = 0; i < most_stops; i++) {
            auto status = wait_stop(monotonic_us() + call_limit_us);
            if (!status) return status.error();
            if (is_settled(*status)) return {};
            if (trace(PTRACE_CONT, tid_, 0, as_data(static_cast<uint64_t>(WSTOPSIG(*status)))) != 0)
                return trouble("continue");
        }
        return make_error(Code::internal, "let go thread", std::to_string(tid_));
    }

    // Which of them it is says whether the process is stopped (ptrace(2), PTRACE_EVENT_STOP).
    bool is_settled(int status) {
        is_stopped_ = status >> 16 == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP;
        return status >> 16 == PTRACE_EVENT_STOP;
    }
    static bool is_syscall(int status) { return status >> 8 == (SIGTRAP | 0x80); }

    Status to_syscall_stop() {
        uint64_t signal = 0;
        for (int i = 0; i < most_stops; i++) {
            if (trace(PTRACE_SYSCALL, tid_, 0, as_data(signal)) != 0) return trouble("continue");
            auto status = wait_stop(monotonic_us() + call_limit_us);
            if (!status) return status.error();
            if (is_syscall(*status)) return {};
            // SIGSTOP alone gets through the mask. Kept back it would come after a SIGCONT that has
            // followed it; so it is delivered, and this thread makes its calls all the same.
            const bool is_stop = *status >> 16 == 0 && WSTOPSIG(*status) == SIGSTOP;
            signal = is_stop ? SIGSTOP : 0;
        }
        return make_error(Code::internal, "call in thread", std::to_string(tid_));
    }

    Status set_registers(user_regs_struct registers) const {
        iovec part{&registers, sizeof registers};
        if (trace(PTRACE_SETREGSET, tid_, NT_PRSTATUS, &part) != 0) return trouble("set");
        return {};
    }

    Result<int> wait_stop(int64_t deadline) const {
        for (int i = 0;; i++) {
            int status = 0;
            const pid_t got = waitpid(tid_, &status, __WALL | WNOHANG);
            if (got == tid_ && WIFSTOPPED(status)) return status;
            if (got == tid_)
                return make_error(Code::not_found, "stop process", std::to_string(pid_),
                                  "it has ended");
            if (got < 0 && errno != EINTR) return trouble("wait for");
            if (monotonic_us() > deadline)
                return make_error(Code::busy, "stop process", std::to_string(pid_));
            if (i > 20) usleep(20);
        }
    }

    const pid_t pid_, wanted_;
    const int64_t deadline_;
    pid_t tid_ = 0;
    uint64_t instruction_ = 0;
    user_regs_struct saved_{};
    uint64_t mask_ = 0;
    Waits waits_;
    bool masked_ = false, touched_ = false, is_stopped_ = false;
};

}  // namespace

user_regs_struct calling(user_regs_struct registers, uint64_t instruction, long number,
                         const std::array<uint64_t, 6>& arguments) {
    registers.rip = instruction;
    registers.rax = static_cast<uint64_t>(number);
    registers.orig_rax = ~uint64_t{0};  // or the kernel would restart what was interrupted
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.r10 = arguments[3];
    registers.r8 = arguments[4];
    registers.r9 = arguments[5];
    return registers;
}

RestartableArea restartable_area(pid_t tid) {
    struct {
        uint64_t area;
        uint32_t size, signature, flags, padding;
    } where{};
    if (trace(get_rseq, tid, sizeof where, &where) <= 0 || where.area == 0) return {};
    return {where.area, std::max(where.size, least_rseq)};
}

Status inject(pid_t pid, int64_t limit_us, const std::function<Status(HeldThread&)>& work,
              pid_t tid) {
    Status status;
    std::thread surgeon(
        [&] { status = Surgeon(pid, tid, monotonic_us() + limit_us).operate(work); });
    surgeon.join();
    return status;
}

namespace {

// A page of the process that is there only while `work` runs.
Result<long> with_page(HeldThread& thread, const std::function<Result<long>(uint64_t at)>& work) {
    const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    auto place = thread.call(SYS_mmap, 0, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                             ~uint64_t{0}, 0);
    if (!place || *place < 0) return place;
    const auto at = static_cast<uint64_t>(*place);
    auto out = work(at);
    if (auto gone = thread.call(SYS_munmap, at, page); !gone) return gone;
    return out;
}

bool put(pid_t pid, uint64_t at, const void* bytes, size_t size) {
    const iovec ours{const_cast<void*>(bytes), size}, its{as_data(at), size};
    return process_vm_writev(pid, &ours, 1, &its, 1, 0) == static_cast<ssize_t>(size);
}

bool get(pid_t pid, uint64_t at, void* bytes, size_t size) {
    const iovec ours{bytes, size}, its{as_data(at), size};
    return process_vm_readv(pid, &ours, 1, &its, 1, 0) == static_cast<ssize_t>(size);
}

// The process opens the device itself, which may be its user's group's (userfaultfd(2)). This and
// what follows: a descriptor of the process, or a negative errno, as of the calls themselves.
Result<long> open_device(HeldThread& thread) {
    return with_page(thread, [&](uint64_t at) -> Result<long> {
        if (!put(thread.pid(), at, device_path, sizeof device_path)) return -errno;
        return thread.call(SYS_openat, static_cast<uint64_t>(AT_FDCWD), at, O_RDWR | O_CLOEXEC);
    });
}

// Where a message with one descriptor is received, in a page.
struct Letter {
    int ends[2];
    char byte;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    iovec part;
    msghdr head;
};

bool send_to(pid_t pid, int end, const Fd& device) {
    const Fd process = open_pidfd(pid);
    const Fd ours(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), end, 0)));
    const char byte = 0;
    return ours && send_with_descriptor(ours.get(), &byte, 1, device.get(), MSG_DONTWAIT) == 1;
}

Result<long> receive_at(HeldThread& thread, uint64_t at, int end) {
    Letter letter{};
    letter.part = {as_data(at + offsetof(Letter, byte)), 1};
    letter.head.msg_iov = static_cast<iovec*>(as_data(at + offsetof(Letter, part)));
    letter.head.msg_iovlen = 1;
    letter.head.msg_control = as_data(at + offsetof(Letter, control));
    letter.head.msg_controllen = sizeof letter.control;
    if (!put(thread.pid(), at, &letter, sizeof letter)) return -errno;
    auto got = thread.call(SYS_recvmsg, static_cast<uint64_t>(end), at + offsetof(Letter, head),
                           MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (!got || *got < 0) return got;
    if (!get(thread.pid(), at, &letter, sizeof letter)) return -errno;
    int fd = -EBADF;
    if (reinterpret_cast<cmsghdr*>(letter.control)->cmsg_len == CMSG_LEN(sizeof(int)))
        std::memcpy(&fd, letter.control + CMSG_LEN(0), sizeof fd);
    return fd;
}

// The process gets a descriptor of ours, over a pair of sockets that it has only meanwhile.
Result<long> give_device(HeldThread& thread, const Fd& device) {
    return with_page(thread, [&](uint64_t at) -> Result<long> {
        int ends[2];
        auto made = thread.call(SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, at);
        if (!made || *made < 0) return made;
        if (!get(thread.pid(), at, ends, sizeof ends)) return -errno;
        auto out = send_to(thread.pid(), ends[0], device) ? receive_at(thread, at, ends[1])
                                                          : Result<long>(-errno);
        for (const int end : ends)
            if (auto closed = thread.call(SYS_close, static_cast<uint64_t>(end)); !closed)
                return closed;
        return out;
    });
}

// The device as ghostd lends it where this user may not open it; none if it does not.
Fd lent_device() {
    if (geteuid() == 0 || access(device_path, R_OK | W_OK) == 0) return {};
    auto lent = borrow(Loan::userfaultfd);
    struct stat ours {
    }, its{};
    if (!lent || stat(device_path, &ours) != 0 || fstat(lent->get(), &its) != 0 ||
        !S_ISCHR(its.st_mode) || its.st_rdev != ours.st_rdev)
        return {};
    return std::move(*lent);
}

Result<long> userfault_of_device(HeldThread& thread, uint64_t flags, const Fd& lent) {
    auto device = lent ? give_device(thread, lent) : open_device(thread);
    if (!device || *device < 0) return device;
    const auto opened = static_cast<uint64_t>(*device);
    auto made = thread.call(SYS_ioctl, opened, USERFAULTFD_IOC_NEW, flags);
    if (auto closed = thread.call(SYS_close, opened); !closed) return closed;
    return made;
}

}  // namespace

Result<Fd> take_userfault(pid_t pid, int64_t limit_us, Faults faults) {
    Fd taken;
    // before the process is held
    const Fd lent = faults == Faults::all ? lent_device() : Fd();
    auto status = inject(pid, limit_us, [&](HeldThread& thread) -> Status {
        const uint64_t flags = O_CLOEXEC | O_NONBLOCK;
        auto made = thread.call(SYS_userfaultfd, flags);
        if (made && *made == -EPERM && faults == Faults::programs)
            made = thread.call(SYS_userfaultfd, flags | user_mode_only);
        else if (made && *made == -EPERM)
            made = userfault_of_device(thread, flags, lent);
        if (!made) return made.error();
        if (*made < 0)
            return sys_error_of(static_cast<int>(-*made), "make userfaultfd in process",
                                std::to_string(pid), Code::refused);
        const Fd process = open_pidfd(pid);
        taken.reset(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), *made, 0)));
        const int why = errno;
        auto closed = thread.call(SYS_close, static_cast<uint64_t>(*made));
        if (!closed) return closed.error();
        if (!taken) return sys_error_of(why, "take userfaultfd of process", std::to_string(pid));
        return {};
    });
    if (!status.ok()) return status.error();
    return taken;
}

}  // namespace ghost::core
