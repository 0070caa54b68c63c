// SPDX-License-Identifier: BSD-3-Clause
// A tree, or a thread, that is held: it is let go as it was, and what is said of it is so.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <optional>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>

#include "base/clock.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/ptrace_session.hpp"
#include "ghost-core/memory/injection.hpp"
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
    // The other one has one thread, or two.
    explicit StopsAndContinues(int threads)
        : at_(static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
        root = fork_bound(getpid(), [this, threads] {
            at_->counts = fork_bound(getpid(), [this, threads] {
                if (threads > 1)
                    std::thread([this] {
                        for (;; usleep(20)) at_->by_second++;
                    }).detach();
                for (;; usleep(20)) {
                    at_->by_first++;
                    if (threads == 1) at_->by_second++;
                }
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

    bool wait_ready() const {
        return wait([this] { return at_->by_second > 0; });
    }
    // With so many signals, SIGSTOP the first. False: it does not begin.
    bool begin(uint64_t signals, uint64_t pause_us) {
        if (!wait([this] { return at_->toggles == 0; })) return false;
        at_->wanted = signals;
        at_->pause_us = pause_us;
        at_->signals = 0;
        return write(told_.in.get(), "x", 1) == 1;
    }
    bool wait_begun() const {
        return wait([this] { return at_->signals > 10; });
    }
    bool is_over() const { return at_->signals == at_->wanted && at_->toggles == 0; }
    void end() const { kill(at_->toggles, SIGKILL); }
    pid_t counting() const { return at_->counts; }
    // Afterwards: all of its threads count, or none does, and it is stopped.
    std::optional<bool> is_stopped() const {
        const uint64_t first = at_->by_first, second = at_->by_second;
        std::optional<bool> out;
        wait([&] {
            if (at_->by_first != first && at_->by_second != second) out = false;
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
        std::atomic<uint64_t> by_first, by_second, signals, wanted, pause_us;
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
    void toggle() {
        at_->toggles = getpid();
        for (uint64_t i = 0; i < at_->wanted; at_->signals = ++i) {
            kill(at_->counts, i % 2 == 0 ? SIGSTOP : SIGCONT);
            for (const int64_t until =
                     monotonic_us() + static_cast<int64_t>(at_->pause_us.load() + i * 7 % 60);
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
    StopsAndContinues tree(2);
    ASSERT_TRUE(tree.wait_ready());
    int stopped = 0, wrong = 0, takes = 0;
    for (const int64_t end = monotonic_us() + 4'000'000; monotonic_us() < end; takes++) {
        ASSERT_TRUE(tree.begin(UINT64_MAX - 1, 0) && tree.wait_begun());
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

// What comes while calls are made in it comes in its order: a SIGSTOP that was kept back till their
// end came after the SIGCONT that followed it, and nobody continued the process any more.
TEST(InjectionTest, StopIsNotKeptBack) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    StopsAndContinues tree(1);  // of several another one takes it
    ASSERT_TRUE(tree.wait_ready());
    int wrong = 0, times = 0;
    for (const int64_t end = monotonic_us() + 4'000'000; monotonic_us() < end; times++) {
        const uint64_t signals = times % 3 == 0 ? 1 : 2;
        const auto status = inject(tree.counting(), 1'000'000, [&](HeldThread& thread) {
            EXPECT_TRUE(tree.begin(signals, 200));
            const int64_t limit = monotonic_us() + 5'000'000;
            while (!tree.is_over() && monotonic_us() < limit)
                if (const auto answer = thread.call(SYS_getpid); !answer)
                    return Status(answer.error());
            return Status();
        });
        ASSERT_TRUE(status.ok()) << status.error().message();
        const auto is_stopped = tree.is_stopped();
        ASSERT_TRUE(is_stopped.has_value());
        wrong += *is_stopped == (signals == 1) ? 0 : 1;
        kill(tree.counting(), SIGCONT);
    }
    std::printf("   %d times\n", times);
    EXPECT_EQ(wrong, 0);
    EXPECT_GT(times, 50);
}

}  // namespace
}  // namespace ghost::core::test
