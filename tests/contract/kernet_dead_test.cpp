// SPDX-License-Identifier: BSD-3-Clause
// Which peers of link tcp are taken for dead: those whose node says nothing any more, and no
// others. Two ends in two network namespaces, between which frames can get lost without a word.
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <unistd.h>

#include "tests/contract/kernet_ends.hpp"
#include "tests/contract/kernet_networks.hpp"

namespace {

using namespace kernet_test;

constexpr int64_t dead_after_us = 2'000'000;
// TCP's own time-outs are a quarter of an hour (tcp(7), tcp_retries2), 15 s of repetitions that
// come every second.
constexpr int64_t noticed_within_us = 10'000'000;

EndpointConfig config_here(uint32_t rank, const char* test) {
    EndpointConfig config = config_of(rank, fmt::format("d{}-{}", getpid(), test), false, true);
    config.if_include = Networks::ip4(0, static_cast<int>(rank));
    config.dead_after_us = dead_after_us;
    return config;
}

// Ranks 0 and 1, connected, with one message taken each way.
class KernetDeadPeer : public testing::Test {
  protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "network namespaces need root";
        networks_ = std::make_unique<Networks>();
        if (!networks_->ready()) GTEST_SKIP() << "no network namespaces with veth here";
        const char* test = testing::UnitTest::GetInstance()->current_test_info()->name();
        for (uint32_t rank : {0U, 1U}) {
            ends_[rank] = networks_->inside(static_cast<int>(rank), [&] {
                return std::make_unique<Idler>(config_here(rank, test));
            });
        }
        ends_[0]->endpoint().set_location(ends_[1]->location());
        ends_[1]->endpoint().set_location(ends_[0]->location());
        out().send(Stream::Message(10, 'o'));
        in().send(Stream::Message(10, 'i'));
        ASSERT_TRUE(taken(0, 1) && taken(1, 1));
        // Until nothing is outstanding.
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (busy() && ghost::monotonic_us() < end) progress();
        ASSERT_FALSE(busy());
    }
    Stream& out() { return ends_[0]->hub().attach(1); }
    Stream& in() { return ends_[1]->hub().attach(0); }
    kernet::Socket& socket(int rank) {
        return ends_[rank]->endpoint().data().attach(static_cast<uint32_t>(1 - rank));
    }
    bool busy() {
        kernet::Gate::Holder inside(ends_[0]->endpoint().data().gate());
        kernet::Gate::Holder other(ends_[1]->endpoint().data().gate());
        return socket(0).busy() || socket(1).busy();
    }
    void progress() {
        for (auto& end : ends_) end->hub().progress();
    }
    // So many messages are taken at that end.
    bool taken(int rank, int count) {
        Stream::Message message;
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (count > 0 && ghost::monotonic_us() < end) {
            progress();
            if ((rank == 0 ? out() : in()).recv(message)) count--;
        }
        return count == 0;
    }
    // How often that end has lost its link: the link's number, 0 if it never did.
    uint64_t lost(uint32_t rank) {
        return ends_[rank]->endpoint().data().registry().peer(1 - rank).lost_generation.load();
    }
    bool lost_in_time(uint32_t rank) {
        const int64_t end = ghost::monotonic_us() + noticed_within_us;
        while (lost(rank) == 0 && ghost::monotonic_us() < end) usleep(1000);
        return lost(rank) != 0;
    }

    std::unique_ptr<Networks> networks_;
    std::unique_ptr<Idler> ends_[2];
};

TEST_F(KernetDeadPeer, DeadPeerIsNoticedWithUnacknowledgedData) {
    ASSERT_TRUE(networks_->connect(false));
    for (uint8_t i = 0; i < 100; i++) out().send(Stream::Message(5000, i));
    EXPECT_TRUE(lost_in_time(0));  // by the agent: the rank does not look
    ASSERT_TRUE(networks_->connect(true));
    for (uint8_t i = 0; i < 100; i++) {
        Stream::Message message;
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!in().recv(message) && ghost::monotonic_us() < end) progress();
        ASSERT_EQ(message, Stream::Message(5000, i));
    }
}

TEST_F(KernetDeadPeer, DeadPeerIsNoticedWhenIdle) {
    ASSERT_TRUE(networks_->connect(false));
    EXPECT_TRUE(lost_in_time(0));
    EXPECT_TRUE(lost_in_time(1));
    ASSERT_TRUE(networks_->connect(true));
    out().send(Stream::Message(10, 'o'));
    EXPECT_TRUE(taken(1, 1));
}

// One that computes for hours: its system's buffer is full, and answers.
TEST_F(KernetDeadPeer, PeerThatDoesNotReadIsNotDead) {
    constexpr size_t size = 1'000'000;
    int sent = 0;
    size_t before = 0;
    do {
        before = out().backlog();
        out().send(Stream::Message(size, 's'));
        sent++;
        for (int i = 0; i < 1000; i++) ends_[0]->hub().progress();
    } while (out().backlog() < before + size || sent < 8);
    const int64_t end = ghost::monotonic_us() + 3 * dead_after_us;
    while (ghost::monotonic_us() < end) ends_[0]->hub().progress();
    EXPECT_EQ(lost(0), 0U);
    EXPECT_EQ(lost(1), 0U);
    EXPECT_TRUE(taken(1, sent));
}

}  // namespace
