// SPDX-License-Identifier: BSD-3-Clause
// The process beside a daemon: when it ends the daemon and what belongs to it, and when not. (A
// node that is cut off, with its daemon stopped or not: tests/net/recover_test.)
#include "pmix-plugin/keeper/keeper.hpp"

#include <chrono>
#include <csignal>
#include <cstring>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <thread>
#include <vector>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/proc.hpp"

namespace ghost::plugin {
namespace {

constexpr int64_t limit_us = 400'000;

void sleep_us(int64_t us) {
    std::this_thread::sleep_for(std::chrono::microseconds(us));
}

// A place on the loopback; without listen() whoever comes is refused.
struct Mpirun {
    Mpirun() : fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in four{};
        four.sin_family = AF_INET;
        four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof four;
        auto* address = reinterpret_cast<sockaddr*>(&four);
        EXPECT_EQ(::bind(fd.get(), address, size), 0);
        EXPECT_EQ(::getsockname(fd.get(), address, &size), 0);
        std::memcpy(&at, &four, sizeof four);
    }
    void listen(int backlog) const { EXPECT_EQ(::listen(fd.get(), backlog), 0); }

    Fd fd;
    sockaddr_storage at{};
};

void expect_no_end(Lease& lease, int looks) {
    for (int i = 0; i < looks; ++i) {
        EXPECT_FALSE(lease.is_over());
        sleep_us(5'000);
    }
}

// Who takes all places of a listener with none to spare.
class Strangers {
  public:
    explicit Strangers(const Mpirun& at) {
        for (int i = 0; i < 4; ++i) {
            Fd& fd =
                fds_.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            (void)::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at.at),
                            sizeof(sockaddr_in));
        }
        sleep_us(20'000);
    }

  private:
    std::vector<Fd> fds_;
};

// A daemon with one child.
class KeeperTest : public testing::Test {
  protected:
    void SetUp() override {
        mpirun_.listen(16);
        auto started = Child::start({.argv = {"sh", "-c", "sleep 60 & wait; :"}});
        ASSERT_TRUE(started.ok());
        daemon_ = started->release();
        for (int i = 0; i < 500 && children_of(daemon_).empty(); ++i) sleep_us(10'000);
        ASSERT_EQ(children_of(daemon_).size(), 1U);
        child_ = children_of(daemon_)[0];
    }
    void TearDown() override {
        ::kill(child_, SIGKILL);
        if (daemon_ > 0) end();
    }
    // The signal it ends with.
    int end() {
        int status = 0;
        ::kill(daemon_, SIGTERM);
        ::kill(daemon_, SIGCONT);
        EXPECT_EQ(::waitpid(std::exchange(daemon_, 0), &status, 0) > 0, true);
        return WTERMSIG(status);
    }
    bool is_there(pid_t pid) const {
        const auto fields = stat_fields(pid);
        return !fields.empty() && fields[0] != "Z";
    }

    Mpirun mpirun_;
    pid_t daemon_ = 0, child_ = 0;
};

TEST_F(KeeperTest, DaemonThatIsStoppedEndsWithItsChildren) {
    ::kill(daemon_, SIGSTOP);
    const int64_t begun = monotonic_us();
    EXPECT_TRUE(Keeper(daemon_, mpirun_.at, limit_us).run().ok());
    EXPECT_GE(monotonic_us() - begun, limit_us * 9 / 10);
    EXPECT_EQ(end(), SIGKILL);
    for (int i = 0; i < 500 && is_there(child_); ++i) sleep_us(10'000);
    EXPECT_FALSE(is_there(child_));
}

TEST_F(KeeperTest, StopsThatEndInTimeAndAnMpirunThatDoesNotReadAreNothing) {
    std::thread keeper([&] { EXPECT_TRUE(Keeper(daemon_, mpirun_.at, limit_us).run().ok()); });
    for (int i = 0; i < 3; ++i) {
        ::kill(daemon_, SIGSTOP);
        sleep_us(limit_us / 4);
        ::kill(daemon_, SIGCONT);
        sleep_us(limit_us / 4);
    }
    EXPECT_TRUE(is_there(daemon_));
    EXPECT_TRUE(is_there(child_));
    EXPECT_EQ(end(), SIGTERM);
    keeper.join();
    EXPECT_TRUE(is_there(child_));  // wrappers see to themselves
}

TEST(LeaseTest, RefusalIsAnAnswer) {
    const Mpirun closed;
    Lease lease(closed.at, limit_us, 4);
    expect_no_end(lease, 20);
}

TEST(LeaseTest, WithoutAnyAnswerThereNeverWasOne) {
    const Mpirun full;
    full.listen(0);
    const Strangers strangers(full);
    Lease lease(full.at, limit_us, 4);
    expect_no_end(lease, 20);
}

TEST(LeaseTest, IsOverWhenNothingIsAnsweredAnyMore) {
    const Mpirun mpirun;
    Lease lease(mpirun.at, limit_us, 4);
    expect_no_end(lease, 2);  // refused, which may show at the next look only
    mpirun.listen(0);
    const Strangers strangers(mpirun);
    expect_no_end(lease, 2);
    bool over = false;
    for (int look = 0; look < 3 && !over; ++look) over = lease.is_over();
    EXPECT_TRUE(over);
}

}  // namespace
}  // namespace ghost::plugin
