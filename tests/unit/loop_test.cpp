// SPDX-License-Identifier: BSD-3-Clause
// base/loop.hpp: who is called when, in which order, and who is not called any more.
#include "base/loop.hpp"

#include <algorithm>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/fork.hpp"

namespace ghost {
namespace {

constexpr int64_t far_us = 30'000'000;  // what must not run out

Fd full_bell() {
    return Fd(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
}

void empty(const Fd& bell) {
    eventfd_t count = 0;
    eventfd_read(bell.get(), &count);
}

pid_t start_child() {
    const pid_t child = fork_process();
    if (child != 0) return child;
    for (;;) pause();
}

std::vector<int> open_descriptors() {
    std::vector<int> out;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        const int fd = std::stoi(entry.path().filename());
        if (fcntl(fd, F_GETFD) >= 0) out.push_back(fd);
    }
    std::sort(out.begin(), out.end());
    return out;
}

TEST(Loop, CallsAsLongAsThereIsSomethingToRead) {
    Loop loop;
    const Fd bell = full_bell();
    int calls = 0;
    const auto watch = loop.on_readable(bell.get(), [&] {
        if (++calls < 3) return;
        empty(bell);
        loop.stop();
    });
    ASSERT_TRUE(loop.run().ok());
    EXPECT_EQ(calls, 3);
    ASSERT_TRUE(loop.round(false).ok());
    EXPECT_EQ(calls, 3);
}

TEST(Loop, CallsWhenSomethingMayBeWritten) {
    Loop loop;
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    const Fd source(ends[0]), sink(ends[1]);
    const std::string block(4096, 'x');
    while (write(sink.get(), block.data(), block.size()) > 0) continue;
    int calls = 0;
    const auto watch = loop.on_writable(sink.get(), [&] { calls++; });
    ASSERT_TRUE(loop.round(false).ok());
    EXPECT_EQ(calls, 0);
    std::string taken(65536, 0);
    ASSERT_GT(read(source.get(), taken.data(), taken.size()), 0);
    ASSERT_TRUE(loop.round().ok());
    EXPECT_EQ(calls, 1);
}

TEST(Loop, TellsTheEndOfAPipe) {
    Loop loop;
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const Fd source(ends[0]);
    Fd(ends[1]).reset();
    int calls = 0;
    const auto watch = loop.on_readable(source.get(), [&] { calls++; });
    ASSERT_TRUE(loop.round().ok());
    EXPECT_EQ(calls, 1);
}

TEST(Loop, TakesFilesThatEpollRefuses) {
    Loop loop;
    const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    const Fd file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    std::string called;
    const auto watches = {loop.on_readable(null.get(), [&] { called += 'n'; }),
                          loop.on_readable(file.get(), [&] { called += 'f'; }),
                          loop.on_writable(null.get(), [&] { called += 'w'; })};
    ASSERT_TRUE(loop.round().ok());
    EXPECT_EQ(called, "nfw");
}

TEST(Loop, CallsInTheOrderOfTheWatches) {
    Loop loop;
    std::vector<Fd> bells;
    for (int i = 0; i < 8; i++) bells.push_back(full_bell());
    std::vector<int> called;
    std::vector<Loop::Watch> watches;
    for (const int i : {5, 2, 7, 0, 4, 6, 1, 3}) {
        watches.push_back(loop.on_readable(bells[static_cast<size_t>(i)].get(),
                                           [&called, i] { called.push_back(i); }));
    }
    for (int round = 0; round < 50; round++) {
        called.clear();
        ASSERT_TRUE(loop.round().ok());
        ASSERT_EQ(called, (std::vector{5, 2, 7, 0, 4, 6, 1, 3}));
    }
}

TEST(Loop, DoesNotCallWhoEndedInTheSameRound) {
    Loop loop;
    const Fd one = full_bell(), two = full_bell();
    int calls = 0;
    Loop::Watch second;
    const auto first = loop.on_readable(one.get(), [&] { second.reset(); });
    second = loop.on_readable(two.get(), [&] { calls++; });
    ASSERT_TRUE(loop.round().ok());
    ASSERT_TRUE(loop.round().ok());
    EXPECT_EQ(calls, 0);
    EXPECT_FALSE(second);
}

TEST(Loop, ACallbackReplacesItsOwnWatch) {
    Loop loop;
    const Fd bell = full_bell();
    std::string said;
    Loop::Watch watch;
    watch = loop.on_readable(bell.get(), [&, old = std::string(64, 'o')] {
        watch = loop.on_readable(bell.get(), [&] { said += "new"; });
        said += old;  // still there
    });
    ASSERT_TRUE(loop.round().ok());
    EXPECT_EQ(said, std::string(64, 'o'));
    said.clear();
    ASSERT_TRUE(loop.round().ok());
    EXPECT_EQ(said, "new");
}

TEST(Loop, ATimerCallsOnceAndNotBeforeItsTime) {
    Loop loop;
    const int64_t begin = monotonic_us();
    int calls = 0;
    const auto soon = loop.after(20'000, [&] { calls++; });
    const auto late = loop.after(60'000, [&] { loop.stop(); });
    const auto never = loop.after(far_us, [&] { calls += 100; });
    ASSERT_TRUE(loop.round(false).ok());
    EXPECT_EQ(calls, 0);
    ASSERT_TRUE(loop.run().ok());
    EXPECT_GE(monotonic_us() - begin, 60'000);
    EXPECT_EQ(calls, 1);
}

TEST(Loop, ARepeatedTimerCallsUntilItsWatchEnds) {
    Loop loop;
    int calls = 0;
    Loop::Watch tick;
    tick = loop.every(1000, [&] {
        if (++calls == 5) tick.reset();
    });
    while (tick) ASSERT_TRUE(loop.round().ok());
    EXPECT_EQ(calls, 5);
    EXPECT_FALSE(loop.round().ok());  // nobody is left
}

TEST(Loop, TellsTheEndOfAChildAndWaitsForNoOther) {
    Loop loop;
    const pid_t ends = start_child(), stays = start_child();
    int ended = 0;
    const auto one = loop.on_end(ends, [&] {
        ended++;
        loop.stop();
    });
    const auto other = loop.on_end(stays, [&] { ended += 100; });
    ASSERT_TRUE(loop.round(false).ok());
    EXPECT_EQ(ended, 0);
    kill(ends, SIGKILL);
    ASSERT_TRUE(loop.run().ok());
    EXPECT_EQ(ended, 1);
    int status = 0;
    EXPECT_EQ(waitpid(ends, &status, 0), ends);  // the loop has not taken it
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    kill(stays, SIGKILL);
    waitpid(stays, nullptr, 0);
}

TEST(Loop, AnotherThreadWakesItByADescriptor) {
    Loop loop;
    const Fd bell(eventfd(0, EFD_CLOEXEC));
    const auto watch = loop.on_readable(bell.get(), [&] { loop.stop(); });
    std::thread other([&] { eventfd_write(bell.get(), 1); });
    EXPECT_TRUE(loop.run().ok());
    other.join();
}

TEST(Loop, WhatACallbackThrowsComesOutAndTheLoopGoesOn) {
    Loop loop;
    const Fd bell = full_bell();
    bool throws = true;
    int calls = 0;
    const auto watch = loop.on_readable(bell.get(), [&] {
        if (throws) throw std::runtime_error("no");
    });
    const auto after = loop.on_readable(bell.get(), [&] { calls++; });
    EXPECT_THROW((void)loop.run(), std::runtime_error);
    EXPECT_EQ(calls, 0);
    throws = false;
    ASSERT_TRUE(loop.round().ok());
    EXPECT_EQ(calls, 1);
}

TEST(Loop, NothingToWaitForIsAnErrorAndNotForEver) {
    Loop loop;
    const auto nothing = loop.on_readable(-1, [] {});
    EXPECT_FALSE(nothing);
    EXPECT_FALSE(loop.run().ok());
    EXPECT_TRUE(loop.round(false).ok());
}

TEST(Loop, ItsDescriptorsAreClosedOnExecAndEndWithIt) {
    const auto before = open_descriptors();
    {
        Loop loop;
        const auto watch = loop.on_end(getpid(), [] {});
        for (const int fd : open_descriptors()) {
            if (std::find(before.begin(), before.end(), fd) != before.end()) continue;
            EXPECT_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC) << fd;
        }
    }
    EXPECT_EQ(open_descriptors(), before);
}

}  // namespace
}  // namespace ghost
