// SPDX-License-Identifier: BSD-3-Clause
// base/readable.hpp: a time limit is kept whatever signals come, and no limit is none.
#include "base/readable.hpp"

#include <csignal>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <thread>

#include "base/fd.hpp"

namespace ghost {
namespace {

// SIGALRM every millisecond; its handler does nothing.
class Interrupted : public testing::Test {
  protected:
    void SetUp() override {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        sigaction(SIGALRM, &action, &before_);
        every(1000);
    }
    void TearDown() override {
        every(0);
        sigaction(SIGALRM, &before_, nullptr);
    }
    static void every(int us) {
        const itimerval time{{0, us}, {0, us}};
        setitimer(ITIMER_REAL, &time, nullptr);
    }

    const Fd bell_{eventfd(0, EFD_CLOEXEC)};
    struct sigaction before_ {};
};

TEST_F(Interrupted, WaitsAsLongAsItWasTold) {
    const int64_t begin = monotonic_us();
    EXPECT_FALSE(await_readable(bell_.get(), 50));
    EXPECT_GE(monotonic_us() - begin, 50'000);
    EXPECT_FALSE(await_readable_until(bell_.get(), begin + 100'000));
    EXPECT_GE(monotonic_us() - begin, 100'000);
}

TEST_F(Interrupted, WithoutALimitWaitsForWhatComes) {
    for (const bool until : {false, true}) {
        std::thread other([&] {
            EXPECT_FALSE(await_readable(-1, 20));
            eventfd_write(bell_.get(), 1);
        });
        EXPECT_TRUE(until ? await_readable_until(bell_.get(), INT64_MAX)
                          : await_readable(bell_.get(), -1));
        other.join();
        eventfd_t count = 0;
        eventfd_read(bell_.get(), &count);
    }
}

TEST(Readable, WhatIsThereIsSeenAfterTheLimitToo) {
    const Fd bell(eventfd(1, EFD_CLOEXEC));
    EXPECT_TRUE(await_readable_until(bell.get(), 0));
    EXPECT_TRUE(await_readable(bell.get(), 0));
}

}  // namespace
}  // namespace ghost
