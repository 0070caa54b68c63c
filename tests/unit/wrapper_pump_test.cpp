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

// However it comes in pieces, what was shown before the first `shown` bytes is not shown again.
std::string shown_again(const std::string& text, size_t from, size_t shown, size_t piece) {
    OutputMeter meter(OutputPlace::of(text.substr(0, from)));
    meter.skip_to(OutputPlace::of(text.substr(0, shown)));
    std::string out;
    for (size_t at = from; at < text.size(); at += piece) {
        const std::string part = text.substr(at, piece);
        out += part.substr(meter.pass(part));
    }
    EXPECT_EQ(meter.place(), OutputPlace::of(text));
    EXPECT_FALSE(meter.skips_to());
    EXPECT_EQ(meter.given(), OutputPlace::of(out));
    return out;
}

TEST(OutputMeter, ShowsNothingTwice) {
    for (const std::string text : {"first\nsecond\nthird", "\n\n\n", "no line at all", "a\n"})
        for (size_t from = 0; from <= text.size(); ++from)
            for (size_t shown = from; shown < text.size(); ++shown)
                for (const size_t piece : {1U, 2U, 7U, 100U})
                    EXPECT_EQ(shown_again(text, from, shown, piece), text.substr(shown))
                        << text << from << shown;
}

TEST(OutputMeter, CountsLinesWhateverIsInThem) {
    OutputMeter meter(OutputPlace::of("step 1\nst"));
    meter.skip_to(OutputPlace::of("step 1\nstep 2 took 3.14 s\nstep 3 took"));
    const std::string again = "ep 2 took 2.7 s\nstep 3\nstep 4\n";
    EXPECT_EQ(again.substr(meter.pass(again)), "\nstep 4\n");
}

TEST(OutputMeter, SkipsNothingWhereThePlaceIsNotKnown) {
    OutputMeter meter(std::nullopt);
    meter.skip_to(OutputPlace{3, 0});
    EXPECT_EQ(meter.pass("a\nb"), 0U);
    EXPECT_EQ(meter.given(), (OutputPlace{1, 1}));
}

TEST(OutputMeter, OfAStoppedWriterAllIsCounted) {
    Pipe from, to;
    Pump pump(from.out.get(), to.in.get(), OutputMeter());
    for (int i = 0; i < 3; ++i) from.put("line\n");
    pump.draw_in();
    from.put("part");
    pump.draw_in();
    EXPECT_EQ(pump.meter()->place(), (OutputPlace{3, 4}));
    pump.run();
    EXPECT_EQ(read_available(to.out.get()), "line\nline\nline\npart");
}

}  // namespace
}  // namespace ghost::plugin
