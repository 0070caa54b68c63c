// SPDX-License-Identifier: BSD-3-Clause
// Pumps lose nothing, hold the writer up instead of storing without bound, and know when all is
// out.
#include "pmix-plugin/wrapper/pump.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/fd.hpp"

namespace ghost::plugin {
namespace {

struct Pipe {
    Fd in, out;
    Pipe() {
        int ends[2] = {-1, -1};
        EXPECT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        out.reset(ends[0]);
        in.reset(ends[1]);
    }
    void put(const std::string& text) {
        ASSERT_EQ(write(in.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    }
};

TEST(Pump, MovesAllThenDrains) {
    Pipe from, to;
    Pump pump(from.out.get(), to.in.get());
    from.put("some text");
    EXPECT_TRUE(pump.run());
    EXPECT_TRUE(pump.drained());
    EXPECT_FALSE(pump.finished());
    EXPECT_EQ(read_available(to.out.get()), "some text");
    from.in.reset();
    pump.run();
    EXPECT_TRUE(pump.finished());
}

TEST(Pump, FullSinkBlocksWriterWithoutLoss) {
    Pipe from, to;
    Pump pump(from.out.get(), to.in.get());
    std::string sent, got;
    for (int stuck = 0; stuck < 3;) {
        std::string piece(4096, static_cast<char>('a' + sent.size() / 4096 % 26));
        if (write(from.in.get(), piece.data(), piece.size()) > 0) {
            sent += piece;
        } else {
            ++stuck;
        }
        pump.run();
    }
    EXPECT_LT(sent.size(), 300'000u);  // two pipes and one buffer
    EXPECT_FALSE(pump.drained());
    EXPECT_EQ(pump.interest().fd, to.in.get());
    while (got.size() < sent.size()) {
        std::string piece = read_available(to.out.get());
        ASSERT_TRUE(!piece.empty() || pump.run());
        got += piece;
        pump.run();
    }
    EXPECT_TRUE(got == sent);
}

TEST(Pump, BrokenSinkDiscards) {
    Pipe from, to;
    signal(SIGPIPE, SIG_IGN);
    Pump pump(from.out.get(), to.in.get());
    to.out.reset();
    from.put("nobody reads this");
    pump.run();
    EXPECT_TRUE(pump.broken());
    EXPECT_TRUE(pump.drained());
}

TEST(Pump, UnwrittenBytesAreReturned) {
    Pipe from, to;
    Pump pump(from.out.get(), to.in.get());
    from.put("second ");
    pump.put_back("first ");
    pump.pause(true);
    EXPECT_EQ(pump.take_pending(), "first ");
    EXPECT_EQ(pump.interest().fd, -1);
    pump.put_back("first ");
    pump.pause(false);
    pump.run();
    EXPECT_EQ(read_available(to.out.get()), "first second ");
}

TEST(Pump, NoSourceNothingPolled) {
    Pump pump;
    EXPECT_TRUE(pump.finished());
    EXPECT_TRUE(pump.drained());
    EXPECT_EQ(pump.interest().fd, -1);
}

}  // namespace
}  // namespace ghost::plugin
