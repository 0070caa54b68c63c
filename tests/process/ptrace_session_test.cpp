// SPDX-License-Identifier: BSD-3-Clause
// A tree that is held: it is let go as it was, and what is said of it is so.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <optional>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>

#include "base/clock.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/ptrace_session.hpp"
#include "tests/process/ghost_tree.hpp"

namespace ghost::core::test {
namespace {

// A thread in the kernel that cannot be interrupted there (it waits for its vfork()ed child) does
// not come to a stop in time; when it does, later, it is not left in it.
TEST(PtraceSessionTest, TimeoutReleasesTree) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    const Pipe told = make_pipe();
    const auto root = static_cast<pid_t>(
        syscall(SYS_clone, SIGCHLD | CLONE_NEWPID, nullptr, nullptr, nullptr, 0L));
    if (root == 0) {
        if (write(told.in.get(), "x", 1) != 1) _exit(1);
        if (vfork() == 0) {
            const timespec some{0, 700'000'000};
            nanosleep(&some, nullptr);
            _exit(0);
        }
        waitpid(-1, nullptr, 0);
        while (write(told.in.get(), "x", 1) == 1) usleep(50'000);
        _exit(1);
    }
    char word = 0;
    ASSERT_EQ(read(told.out.get(), &word, 1), 1);
    usleep(100'000);
    {
        auto session = PtraceSession::take(root, PtraceSession::numbers(root), 100'000);
        EXPECT_FALSE(session.ok());
        EXPECT_EQ(session.error().code, Code::timeout);
    }
    pollfd again{told.out.get(), POLLIN, 0};
    EXPECT_EQ(poll(&again, 1, 5000), 1);
    for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", root)))
        EXPECT_EQ(read_status(fmt::format("/proc/{}", tid))->tracer, 0);
    EXPECT_TRUE(PtraceSession::take(root, PtraceSession::numbers(root), 2'000'000).ok());
    kill(root, SIGKILL);
    waitpid(root, nullptr, 0);
}

// A tree in which one process stops and continues another one as fast as it can.
class StopsAndContinues {
  public:
    StopsAndContinues()
        : at_(static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
        root = fork_bound(getpid(), [this] {
            at_->counts = fork_bound(getpid(), [this] {
                std::thread([this] { count(1); }).detach();
                count(0);
            });
            for (char word = 0; read(told_.out.get(), &word, 1) == 1;) {
                waitpid(fork_bound(getpid(), [this] { toggle(); }), nullptr, 0);
                at_->toggles = 0;
            }
        });
    }
    ~StopsAndContinues() {
        // The last one first: whoever has a parent is not another process by now.
        for (const pid_t pid : {at_->toggles.load(), at_->counts.load(), root})
            if (pid > 0) kill(pid, SIGKILL);
        waitpid(root, nullptr, 0);
        munmap(at_, sizeof(Shared));
    }
    StopsAndContinues(const StopsAndContinues&) = delete;
    StopsAndContinues& operator=(const StopsAndContinues&) = delete;

    // False: it does not begin.
    bool begin() {
        if (!wait([this] { return at_->toggles == 0; })) return false;
        at_->signals = 0;
        return write(told_.in.get(), "x", 1) == 1 && wait([this] { return at_->signals > 10; });
    }
    void end() const { kill(at_->toggles, SIGKILL); }
    pid_t counting() const { return at_->counts; }
    // Afterwards: all of its threads count, or none does, and it is stopped.
    std::optional<bool> is_stopped() const {
        const uint64_t before[] = {at_->count[0], at_->count[1]};
        std::optional<bool> out;
        wait([&] {
            if (at_->count[0] != before[0] && at_->count[1] != before[1]) out = false;
            const auto now = read_status(fmt::format("/proc/{}", counting()));
            if (now && now->state == 'T') out = true;
            return out.has_value();
        });
        return out;
    }

    pid_t root = 0;

  private:
    struct Shared {
        std::atomic<pid_t> counts, toggles;
        std::atomic<uint64_t> count[2], signals;
    };
    // Ends with its parent, whatever becomes of that.
    static pid_t fork_bound(pid_t parent, const auto& what) {
        const pid_t pid = fork();
        if (pid != 0) return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) what();
        _exit(0);
    }
    static bool wait(const auto& what) {
        const int64_t limit = monotonic_us() + 5'000'000;
        while (!what() && monotonic_us() < limit) usleep(100);
        return what();
    }
    [[noreturn]] void count(int which) {
        for (;; usleep(20)) at_->count[which]++;
    }
    [[noreturn]] void toggle() {
        at_->toggles = getpid();
        for (uint64_t i = 0;; at_->signals = ++i) {
            kill(at_->counts, i % 2 == 0 ? SIGSTOP : SIGCONT);
            for (const int64_t until = monotonic_us() + static_cast<int64_t>(i * 7 % 60);
                 monotonic_us() < until;) {
            }
        }
    }

    Shared* at_;
    Pipe told_ = make_pipe();
};

// What the session says is so from then on: whoever could change it is held.
TEST(PtraceSessionTest, KnowsWhoIsStoppedBySomebodyOfTheTree) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    StopsAndContinues tree;
    int stopped = 0, wrong = 0, takes = 0;
    for (const int64_t end = monotonic_us() + 4'000'000; monotonic_us() < end; takes++) {
        ASSERT_TRUE(tree.begin());
        bool said = false;
        {
            const auto session =
                PtraceSession::take(tree.root, PtraceSession::numbers(tree.root), 2'000'000);
            ASSERT_TRUE(session.ok()) << session.error().message();
            const auto& all = session->processes();
            const auto found =
                std::ranges::find(all, tree.counting(), &PtraceSession::Process::pid);
            ASSERT_NE(found, all.end());
            said = found->stopped;
            tree.end();
        }
        const auto is_so = tree.is_stopped();
        ASSERT_TRUE(is_so.has_value());
        stopped += *is_so ? 1 : 0;
        wrong += said == *is_so ? 0 : 1;
    }
    std::printf("   %d times, %d of them stopped\n", takes, stopped);
    EXPECT_EQ(wrong, 0);
    EXPECT_GT(takes, 50);
    EXPECT_GT(stopped, 0);
    EXPECT_LT(stopped, takes);
}

}  // namespace
}  // namespace ghost::core::test
