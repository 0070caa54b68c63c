// SPDX-License-Identifier: BSD-3-Clause
// base/await.hpp: a time limit is kept whatever signals come, and no limit is none.
#include "base/await.hpp"

#include <csignal>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <string>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <thread>
#include <unistd.h>

#include "base/control_socket.hpp"
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

TEST_F(Interrupted, AControlMessageIsWaitedForAsLong) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    const int64_t begin = monotonic_us();
    auto message = pair->second.receive(50);
    ASSERT_FALSE(message.ok());
    EXPECT_EQ(message.error().code, Code::timeout);
    EXPECT_GE(monotonic_us() - begin, 50'000);
}

TEST(Await, AFullPipeIsWritableWhenItIsRead) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    const Fd source(ends[0]), sink(ends[1]);
    std::string block(65536, 'x');
    EXPECT_TRUE(await_writable(sink.get(), 0));
    while (write(sink.get(), block.data(), block.size()) > 0) continue;
    EXPECT_FALSE(await_writable(sink.get(), 0));
    ASSERT_GT(read(source.get(), block.data(), block.size()), 0);
    EXPECT_TRUE(await_writable(sink.get(), -1));
}

TEST(Await, WhatIsThereIsSeenAfterTheLimitToo) {
    const Fd bell(eventfd(1, EFD_CLOEXEC));
    EXPECT_TRUE(await_readable_until(bell.get(), 0));
    EXPECT_TRUE(await_readable(bell.get(), 0));
}

}  // namespace
}  // namespace ghost
