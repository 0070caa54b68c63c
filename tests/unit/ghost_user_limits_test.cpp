// SPDX-License-Identifier: BSD-3-Clause
// What keeps an ordinary user's processes from being moved, as the processes themselves show it.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <fmt/format.h>
#include <functional>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "ghost-core/criu/user_limits.hpp"

namespace ghost::core {
namespace {

constexpr uid_t somebody = 65534;

pid_t start(const std::function<void()>& does) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    does();
    _exit(0);
}

// As an ordinary user, in a process of its own: whether `holds` does.
bool holds_for_a_user(const std::function<bool()>& holds) {
    const pid_t pid = start([&] {
        if (geteuid() == 0 && (setresgid(somebody, somebody, somebody) != 0 ||
                               setresuid(somebody, somebody, somebody) != 0))
            _exit(2);
        prctl(PR_SET_DUMPABLE, 1);  // a change of user takes it
        _exit(holds() ? 0 : 1);
    });
    int status = -1;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool is_roots(pid_t pid) {
    struct stat info {};
    return stat(fmt::format("/proc/{}/status", pid).c_str(), &info) == 0 &&
           info.st_uid != geteuid();
}

bool is_refused(pid_t pid, const char* why = "PR_SET_DUMPABLE") {
    const auto tree = list_tree(pid);
    if (!tree) return false;
    for (const auto& line : only_for_root(*tree, "rank 1"))
        if (line.find(why) != std::string::npos) return true;
    return false;
}

// The memory of a process that ends goes before the process does: it takes long here, and as long
// its /proc is root's.
TEST(UserLimits, AProcessThatEndsIsNotInTheWay) {
    EXPECT_TRUE(holds_for_a_user([] {
        constexpr size_t size = 256 << 20;
        constexpr int most_trials = 50;
        bool was_between = false;
        for (int trial = 0; trial < most_trials && !was_between; ++trial) {
            const pid_t child = start([] {
                mmap(nullptr, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
            });
            siginfo_t ended{};
            while (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT) ==
                       0 &&
                   ended.si_pid == 0) {
                if (!is_roots(child)) continue;
                was_between = true;
                if (is_refused(child)) return false;
            }
            waitpid(child, nullptr, 0);
        }
        return was_between;
    }));
}

TEST(UserLimits, AProcessThatLetsNobodyLookIsRefused) {
    EXPECT_TRUE(holds_for_a_user([] {
        int ends[2];
        if (pipe(ends) != 0) return false;
        const pid_t child = start([&] {
            prctl(PR_SET_DUMPABLE, 0);
            if (write(ends[1], "x", 1) == 1) pause();
        });
        char ready = 0;
        const bool refused = read(ends[0], &ready, 1) == 1 && is_refused(child);
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
        return refused;
    }));
}

// criu would take it out and not be able to give it back to its owner where it is restored.
TEST(UserLimits, AMemfdOfAnotherUserIsRefused) {
    if (geteuid() != 0) GTEST_SKIP() << "it takes root to be two users";
    const Fd roots(memfd_create("root's", 0));
    ASSERT_TRUE(roots);
    const std::string which =
        fmt::format("descriptor {} cannot move: it is another user's memory", roots.get());
    EXPECT_TRUE(holds_for_a_user([&] { return is_refused(getpid(), which.c_str()); }));
    EXPECT_TRUE(holds_for_a_user([&] {
        close(roots.get());
        const Fd own(memfd_create("own", 0));
        return own && !is_refused(getpid(), "memfd");
    }));
}

}  // namespace
}  // namespace ghost::core
