// SPDX-License-Identifier: BSD-3-Clause
// Between clone(2) and exec the child runs in this process's memory, on a stack of its own, while
// the thread that started it stands still: as posix_spawn(3) does, which can neither make name
// spaces nor enter them. System calls only there, made directly: a sanitizer would take those of
// the C library for this process's own.
#include "base/child.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <utility>

#include "base/clock.hpp"
#include "base/pidfd.hpp"
#include "base/await.hpp"

// clone(2) by the C library's other name for it: by the usual one ThreadSanitizer takes the child
// for one of fork(2), with memory of its own.
extern "C" int __clone(int (*)(void*), void* stack, int flags, void* given, ...) noexcept;

// No mark of a sanitizer's on the foreign stack.
#define GHOST_IN_CHILD __attribute__((no_sanitize("address", "thread", "undefined")))

namespace ghost {
namespace {

constexpr size_t stack_bytes = 256 * 1024;  // what execvpe(3) needs, and a copy of argv's pointers
constexpr uint64_t no_signals = 0;

// For one child, and for a second one in front of it that an orphan begins with.
class Stacks {
  public:
    explicit Stacks(size_t words)
        : each_(stack_bytes + (words * sizeof(char*) / 4096 + 1) * 4096),
          memory_(mmap(nullptr, 2 * each_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)) {}
    ~Stacks() {
        if (ok()) munmap(memory_, 2 * each_);
    }
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;

    bool ok() const { return memory_ != MAP_FAILED; }
    char* end(size_t number) const { return static_cast<char*>(memory_) + (number + 1) * each_; }

  private:
    size_t each_;
    void* memory_;
};

// What the child has to do, in plain arrays; `failed` is its answer.
struct Plan {
    const char* file = nullptr;
    char* const* argv = nullptr;
    char* const* environment = nullptr;
    const char* folder = nullptr;
    int* descriptors = nullptr;  // become 0, 1, …
    unsigned count = 0;
    bool closes_others = true, orphan = false;
    ChildRequest::Place place = ChildRequest::Place::own_group;
    ChildRequest::Signals signals = ChildRequest::Signals::fresh;
    uint64_t mask = no_signals;
    uint64_t namespaces = 0;
    int network = inherited, death_signal = 0;
    bool no_groups = false;
    pid_t parent = 0;
    char* stack = nullptr;  // the next child's

    const char* tried = "start";
    int failed = 0;
};

// As the kernel has it (rt_sigaction(2)).
struct Disposition {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

// Handlers are this process's functions; signals stay blocked until none is left.
GHOST_IN_CHILD void set_signals(const Plan& plan) {
    const auto ignore = reinterpret_cast<uintptr_t>(SIG_IGN);
    const Disposition standard{};
    for (int s = 1; s < NSIG; s++) {
        Disposition now{};
        syscall(SYS_rt_sigaction, s, nullptr, &now, sizeof now.mask);
        bool stays = now.handler == ignore && plan.signals != ChildRequest::Signals::fresh;
        if (s == SIGCHLD && plan.signals == ChildRequest::Signals::blocked) stays = false;
        if (now.handler != standard.handler && !stays)
            syscall(SYS_rt_sigaction, s, &standard, nullptr, sizeof now.mask);
    }
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &plan.mask, nullptr, sizeof plan.mask);
}

GHOST_IN_CHILD bool take_place(const Plan& plan) {
    if (plan.place == ChildRequest::Place::own_session && syscall(SYS_setsid) < 0) return false;
    if (plan.place == ChildRequest::Place::own_group && syscall(SYS_setpgid, 0, 0) != 0)
        return false;
    if (plan.death_signal != 0) {
        syscall(SYS_prctl, PR_SET_PDEATHSIG, plan.death_signal, 0, 0, 0);
        // From inside a PID name space of its own the parent has no number.
        if ((plan.namespaces & CLONE_NEWPID) == 0 && syscall(SYS_getppid) != plan.parent)
            return false;
    }
    if (plan.no_groups) syscall(SYS_setgroups, 0, nullptr);  // not libc's: it asks all threads
    return plan.network < 0 || syscall(SYS_setns, plan.network, CLONE_NEWNET) == 0;
}

GHOST_IN_CHILD bool take_descriptors(const Plan& plan) {
    // Copies first, above all that they become: no dup2 overwrites one that is still needed.
    for (unsigned i = 0; i < plan.count; i++) {
        int& fd = plan.descriptors[i];
        if (fd < 0) continue;
        fd = static_cast<int>(syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, plan.count));
        if (fd < 0) return false;
    }
    for (unsigned i = 0; i < plan.count; i++) {
        const int fd = plan.descriptors[i];
        if (fd >= 0 && syscall(SYS_dup3, fd, i, 0) < 0) return false;
    }
    return !plan.closes_others || syscall(SYS_close_range, plan.count, ~0U, 0U) == 0;
}

// Also what the child's number is good for when it returns: its exit status.
GHOST_IN_CHILD int begin(void* given) {
    Plan& plan = *static_cast<Plan*>(given);
    if (plan.orphan) {
        plan.orphan = false;
        if (__clone(begin, plan.stack, CLONE_VM | CLONE_VFORK | SIGCHLD, given) < 0)
            plan.failed = errno;
        return 0;
    }
    if (take_place(plan) && take_descriptors(plan)) {
        plan.tried = "enter folder";
        if (plan.folder == nullptr || syscall(SYS_chdir, plan.folder) == 0) {
            plan.tried = "start";
            set_signals(plan);
            execvpe(plan.file, plan.argv, plan.environment);
        }
    }
    plan.failed = errno != 0 ? errno : ESRCH;
    return 127;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> out;
    for (const auto& text : strings) out.push_back(const_cast<char*>(text.c_str()));
    out.push_back(nullptr);
    return out;
}

std::vector<std::string> environment_of(const ChildRequest& request) {
    std::vector<std::string> out;
    const auto replaced = [&](std::string_view entry) {
        const auto name = entry.substr(0, entry.find('=') + 1);
        return std::any_of(request.environment.begin(), request.environment.end(),
                           [&](const std::string& own) { return own.starts_with(name); });
    };
    for (char** at = environ; request.own_environment && *at != nullptr; at++)
        if (!replaced(*at)) out.emplace_back(*at);
    out.insert(out.end(), request.environment.begin(), request.environment.end());
    return out;
}

Result<Fd> open_null(const ChildRequest& request) {
    const auto& stdio = request.stdio;
    if (std::find(stdio.begin(), stdio.end(), null_device) == stdio.end()) return Fd();
    Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null) return sys_error("open", "/dev/null");
    return null;
}

struct Started {
    pid_t pid = 0;
    Fd pidfd;
};

Error why_not(const Plan& plan, int sys, const ChildRequest& request) {
    const bool in_folder = plan.folder != nullptr && std::strcmp(plan.tried, "start") != 0;
    return sys_error_of(sys, plan.tried, in_folder ? request.folder : plan.file,
                        sys == ENOENT ? Code::unsupported : Code::io);
}

// The mask that the child gets where it keeps ours; signals are blocked until it is on its own, for
// a handler there would run in this process's memory.
Result<Started> clone_child(Plan& plan, const Stacks& stacks, const ChildRequest& request) {
    const uint64_t all = ~no_signals;
    uint64_t before = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof before);
    if (plan.signals == ChildRequest::Signals::kept) plan.mask = before;
    if (plan.signals == ChildRequest::Signals::blocked) plan.mask = all;
    int pidfd = -1;
    const pid_t pid =
        __clone(begin, stacks.end(0),
                static_cast<int>(CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD | plan.namespaces),
                &plan, &pidfd);
    const int failed = errno;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
    if (pid < 0 && plan.namespaces != 0)
        return sys_error_of(failed, "make name spaces for", plan.file, Code::unsupported);
    if (pid < 0) return sys_error_of(failed, "start", plan.file);
    Started out{pid, Fd(pidfd)};
    if (plan.failed == 0) return out;
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
    return why_not(plan, plan.failed, request);
}

Result<Started> start_child(const ChildRequest& request, bool orphan) {
    auto null = open_null(request);
    if (!null) return null.error();
    std::vector<int> descriptors(request.stdio.begin(), request.stdio.end());
    std::replace(descriptors.begin(), descriptors.end(), null_device, null->get());
    descriptors.insert(descriptors.end(), request.descriptors.begin(), request.descriptors.end());
    const auto words = pointers(request.argv);
    const auto entries = environment_of(request);
    const auto environment = pointers(entries);
    const Stacks stacks(words.size());
    if (!stacks.ok()) return sys_error("start", request.argv[0]);
    Plan plan;
    plan.file = request.program.empty() ? words[0] : request.program.c_str();
    plan.argv = words.data();
    plan.environment = environment.data();
    plan.folder = request.folder.empty() ? nullptr : request.folder.c_str();
    plan.descriptors = descriptors.data();
    plan.count = static_cast<unsigned>(descriptors.size());
    plan.closes_others = request.closes_others;
    plan.orphan = orphan;
    plan.place = request.place;
    plan.signals = request.signals;
    plan.namespaces = request.namespaces;
    plan.network = request.network;
    plan.death_signal = request.death_signal;
    plan.no_groups = request.no_groups;
    plan.parent = getpid();
    plan.stack = stacks.end(1);
    return clone_child(plan, stacks, request);
}

}  // namespace

Result<Child> Child::start(const ChildRequest& request) {
    auto started = start_child(request, false);
    if (!started) return started.error();
    return Child(started->pid, std::move(started->pidfd));
}

Status Child::start_orphan(const ChildRequest& request) {
    auto started = start_child(request, true);
    if (!started) return started.error();
    while (waitpid(started->pid, nullptr, 0) < 0 && errno == EINTR) continue;
    return {};
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::move(other.pidfd_)),
      status_(other.status_),
      ended_(std::exchange(other.ended_, true)) {}

Child::~Child() {
    if (!ended_) kill();
}

// Processes that a killed one has started would go on, and keep its pipes open. They are in its
// group, and as long as it is not reaped nobody else can be.
void Child::end_family() const {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == pid_ && info.si_code != CLD_EXITED)
        ::kill(-pid_, SIGKILL);
}

bool Child::wait(int64_t deadline_us) {
    while (!ended_) {
        if (!await_readable_until(pidfd_.get(), deadline_us)) return false;
        end_family();
        if (waitpid(pid_, &status_, WNOHANG) == pid_) ended_ = true;
        if (!ended_ && errno == ECHILD) {  // somebody else reaped it
            status_ = 0xff00;
            ended_ = true;
        }
    }
    return true;
}

void Child::kill() {
    if (ended_ || pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    signal_pidfd(pidfd_.get(), SIGKILL);
    while (waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
    ended_ = true;
}

pid_t Child::release() {
    ended_ = true;
    pidfd_.reset();
    return pid_;
}

bool Child::succeeded() const {
    return ended_ && WIFEXITED(status_) && WEXITSTATUS(status_) == 0;
}

std::string describe_status(int status) {
    if (WIFSIGNALED(status))
        return fmt::format("signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace ghost
