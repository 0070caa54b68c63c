// SPDX-License-Identifier: BSD-3-Clause
// A rank and those who connect to it without proving themselves: they take little of it, and no
// place of its peers.
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

#include "base/log.hpp"
#include "kernet-btl/link/net.hpp"
#include "tests/contract/kernet_ends.hpp"
#include "tests/contract/strangers.hpp"

namespace {

using namespace kernet_test;

// The bytes of what a peer says first.
std::string said_by(const EndpointConfig& from) {
    const auto hello = hello_of(from);
    return {reinterpret_cast<const char*>(&hello), sizeof hello};
}

constexpr int places = 32;

class KernetStrangers : public testing::Test {
  protected:
    KernetStrangers()
        : job_(fmt::format("s{}", getpid())),
          one_(config_of(0, job_, false, true), 20),
          other_(config_of(1, job_, false, true), 20),
          strangers_(one_.location().tcp.at(0).port) {
        one_.begin(other_.location());
    }
    template <typename Condition>
    bool in_time(Condition&& condition, int64_t us = 5'000'000) {
        const int64_t end = ghost::monotonic_us() + us * times_slower();
        while (!condition() && ghost::monotonic_us() < end) usleep(1000);
        return condition();
    }
    // Of a later placement than known: it crosses no attempt.
    EndpointConfig later() const {
        EndpointConfig config = config_of(1, job_, false, true);
        config.epoch = 9;
        return config;
    }
    // The true peer comes, and is done before a stranger's time would be over.
    void expect_peer_at_once() {
        const int64_t begun = ghost::monotonic_us();
        other_.begin(one_.location());
        EXPECT_TRUE(in_time([&] { return one_.done() && other_.done(); }, 20'000'000));
        EXPECT_LT(ghost::monotonic_us() - begun, 1'500'000 * times_slower());
    }

    std::string job_;
    Side one_, other_;
    Strangers strangers_;
};

// Each says a little, and now and then a little more.
TEST_F(KernetStrangers, DrippingOnesCrowdOutEachOther) {
    strangers_.come(800, "K");
    EXPECT_EQ(strangers_.came(), 800u);
    EXPECT_TRUE(in_time([&] { return strangers_.kept() <= places; }, 1'000'000));
    strangers_.say("N");
    expect_peer_at_once();
    // However they go on, a greeting has one deadline.
    EXPECT_TRUE(in_time([&] {
        strangers_.say("T");
        return strangers_.kept() == 0;
    }));
}

TEST_F(KernetStrangers, FullPlacesCostNoTime) {
    strangers_.come(800, "K");
    EXPECT_TRUE(in_time([&] { return strangers_.kept() <= places; }, 1'000'000));
    const int64_t before = processor_us();
    usleep(500'000);
    EXPECT_LT(processor_us() - before, 250'000);
    expect_peer_at_once();
}

// Of what somebody has recorded only the first one is listened to.
TEST_F(KernetStrangers, RecordedHelloTakesOnePlace) {
    const std::string hello = said_by(later());
    strangers_.come(1, hello);
    ASSERT_TRUE(in_time([&] { return strangers_.kept() == 1 && strangers_.heard() > 0; }));
    Strangers others(one_.location().tcp.at(0).port);
    others.come(1100, hello);
    EXPECT_TRUE(in_time([&] { return others.kept() == 0; }, 1'000'000));
    EXPECT_EQ(others.heard(), 0u);
    EXPECT_EQ(strangers_.kept(), 1);
    expect_peer_at_once();
}

// While one attempt waits for what a recorder cannot say, those of the true peer go on.
TEST_F(KernetStrangers, RecordedHelloEndsNoAttempt) {
    strangers_.come(1, said_by(later()));
    ASSERT_TRUE(in_time([&] { return strangers_.kept() == 1 && strangers_.heard() > 0; }));
    Strangers others(one_.location().tcp.at(0).port);
    others.come(1, said_by(later()));
    ASSERT_TRUE(in_time([&] { return others.kept() == 1 && others.heard() > 0; }));
    EXPECT_EQ(strangers_.kept(), 1);
    expect_peer_at_once();
}

TEST_F(KernetStrangers, MalformedGreetingsAreOneLine) {
    const std::string path = testing::TempDir() + "strangers." + std::to_string(getpid());
    ASSERT_EQ(setenv("GHOST_LOG", path.c_str(), 1), 0);
    strangers_.come(800, std::string(160, 'A'));
    EXPECT_TRUE(in_time([&] { return strangers_.kept() == 0; }));
    unsetenv("GHOST_LOG");
    std::ifstream file(path);
    int lines = 0;
    for (std::string line; std::getline(file, line);) lines += line.find("refused") != line.npos;
    unlink(path.c_str());
    EXPECT_EQ(lines, 1);
    expect_peer_at_once();
}

}  // namespace
