// SPDX-License-Identifier: BSD-3-Clause
// ghost-init: the first process of a tree's PID name space.
//
//   ghost-init INNER_PID SIGNAL_MASK CHLD_IGNORED OWN_PROC PROGRAM [ARGUMENT…]
//
// Starts the program, hands it the signals that come from outside, reaps, and ends as it ends.
// It becomes part of every ghost, so it is as small as possible: linked statically, no descriptor
// besides /dev/null, no memory of its own. Started with the program's descriptors, every signal
// blocked, and as process 1 (pid_namespaces(7)), by spawn_nested().
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/capability.h>
#include <string_view>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fork.hpp"
#include "ghost-core/criu/init_protocol.hpp"

namespace {

using ghost::core::init_argument;

// Forks with wanted numbers, of this name space first and then of the one above; without if that
// is refused (old kernel, no CAP_CHECKPOINT_RESTORE, number taken).
pid_t fork_as(pid_t (&wanted)[2]) {
    for (uint64_t count = wanted[1] > 1 ? 2 : 1; count > 0 && wanted[0] > 1; --count) {
        const pid_t pid = ghost::fork_process({.numbers = wanted, .number_count = count});
        if (pid >= 0) return pid;
    }
    return ghost::fork_process();
}

// As execvp(3), but a file without a known format is an error as it is for the runtime, not a
// shell script; and after PATH the working directory is looked at, as the runtime does.
void execute(char* const* argv) {
    std::string_view name = argv[0];
    if (name.find('/') != std::string_view::npos) {
        execv(argv[0], argv);
        return;
    }
    const char* path = std::getenv("PATH");
    std::string_view rest = path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin";
    int refused = ENOENT;
    const auto try_in = [&](std::string_view folder) {
        char file[4096];
        std::snprintf(file, sizeof file, "%.*s/%s", static_cast<int>(folder.size()), folder.data(),
                      argv[0]);
        execv(file, argv);
        if (errno != ENOENT && errno != ENOTDIR) refused = errno;
    };
    while (true) {
        size_t end = rest.find(':');
        std::string_view folder = rest.substr(0, end);
        try_in(folder.empty() ? "." : folder);
        if (end == std::string_view::npos) break;
        rest.remove_prefix(end + 1);
    }
    try_in(".");
    errno = refused;
}

// In a mount name space of its own, which goes on to share all mounts but this one with the node's.
// Where proc may not be mounted, the program sees the node's.
void mount_proc() {
    if (mount(nullptr, "/proc", nullptr, MS_PRIVATE, nullptr) != 0) return;
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
}

// A user's has some until here, for the program's number and for /proc. What a root has is his.
void drop_capabilities() {
    if (geteuid() == 0) return;
    __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[2]{};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    syscall(SYS_capset, &head, none);
}

[[noreturn]] void become_program(const sigset_t& mask, bool chld_ignored, char* const* argv) {
    drop_capabilities();
    setsid();
    if (chld_ignored) std::signal(SIGCHLD, SIG_IGN);
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    execute(argv);
    char text[4400];
    int n = std::snprintf(text, sizeof text, "ghost: cannot execute %s: %s\n", argv[0],
                          std::strerror(errno));
    if (n > 0 && write(STDERR_FILENO, text, static_cast<size_t>(n)) < 0) _exit(127);
    _exit(127);
}

void drop_stdio() {
    int fd = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; ++i) dup2(fd, i);
    syscall(SYS_close_range, 3u, ~0u, 0u);
}

// A process 1 cannot die of a signal sent from inside: the name it leaves behind tells its parent.
[[noreturn]] void end_like(int status) {
    if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
    char name[16];
    std::snprintf(name, sizeof name, "%s%d", ghost::core::init_died_of, WTERMSIG(status));
    prctl(PR_SET_NAME, name);
    _exit(128 + WTERMSIG(status));
}

void reap(pid_t program) {
    int status = 0;
    pid_t pid = 0;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == program) end_like(status);
    }
}

// Signals of the runtime come from an outer name space, where the sender has no number here; what
// processes of the rank send to process 1 is ignored as it would be for any init. A SIGCONT of
// sigqueue(3) is for this process alone: the end of a freeze (continue_tasks).
void forward(pid_t program, const siginfo_t& info) {
    if (info.si_code > 0 || info.si_pid != 0 || info.si_signo == SIGPIPE) return;
    if (info.si_signo == SIGCONT && info.si_code == SI_QUEUE) return;
    if (info.si_signo == SIGTERM) {
        // SIGKILL for the wrapper follows (the runtime's way to end a job); the tree goes with it.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    if (kill(-program, info.si_signo) != 0) kill(program, info.si_signo);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc <= init_argument::program) return 2;
    pid_t wanted[2] = {0, 0};
    std::sscanf(argv[init_argument::inner_pid], "%d:%d", &wanted[0], &wanted[1]);
    uint64_t bits = std::strtoull(argv[init_argument::mask], nullptr, 16);
    bool chld_ignored = argv[init_argument::chld_ignored][0] == '1';
    sigset_t mask;
    sigemptyset(&mask);
    for (int s = 1; s <= 64; ++s) {
        if ((bits >> (s - 1) & 1) != 0) sigaddset(&mask, s);
    }
    if (argv[init_argument::own_proc][0] == '1') mount_proc();
    setsid();
    pid_t program = fork_as(wanted);
    if (program == 0) become_program(mask, chld_ignored, argv + init_argument::program);
    if (program < 0) {
        std::perror("ghost: cannot start a process");
        return 127;
    }
    drop_stdio();
    drop_capabilities();
    sigset_t all;
    sigfillset(&all);
    for (;;) {
        siginfo_t info{};
        int s = sigwaitinfo(&all, &info);
        if (s == SIGCHLD) {
            reap(program);
        } else if (s > 0) {
            forward(program, info);
        }
    }
}
