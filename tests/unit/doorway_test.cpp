// SPDX-License-Identifier: BSD-3-Clause
// Who has not proved himself costs next to nothing, and keeps nobody out. The clock is the test's.
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <cerrno>
#include <fstream>
#include <netinet/in.h>
#include <poll.h>
#include <sstream>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/doorway.hpp"
#include "base/log.hpp"

namespace {

using ghost::Doorway;
using ghost::Fd;

Doorway::Origin machine(uint8_t number) {
    Doorway::Origin out{};
    out[15] = number;
    return out;
}

constexpr int64_t start = 1'000'000'000;

TEST(Doorway, HostileMachineCrowdsOutItselfAlone) {
    Doorway door({.most = 4});
    EXPECT_FALSE(door.enter(1, machine(1), start));  // true ones, from another machine
    EXPECT_FALSE(door.enter(2, machine(2), start));
    EXPECT_FALSE(door.enter(3, machine(9), start));
    EXPECT_FALSE(door.enter(4, machine(9), start));
    uint64_t oldest = 3;
    for (uint64_t id = 5; id < 2000; id++) {
        ASSERT_TRUE(door.is_open(start + static_cast<int64_t>(id) * 1000));
        EXPECT_EQ(door.enter(id, machine(9), start), oldest++);
        EXPECT_EQ(door.strangers(), 4u);
    }
}

TEST(Doorway, WhoHasSpokenGoesLast) {
    Doorway door({.most = 3, .mute_us = 0, .spoken_us = 100'000});
    for (uint64_t id : {1, 2, 3}) EXPECT_FALSE(door.enter(id, machine(1), start));
    door.spoke(1);
    EXPECT_EQ(door.enter(4, machine(1), start), 2u);
    door.spoke(3);
    door.spoke(4);
    // All have spoken: nobody is let in until the first of them has had his time, or has gone.
    EXPECT_FALSE(door.is_open(start + 99'999));
    EXPECT_EQ(door.wakes_at(start), start + 100'000);
    EXPECT_TRUE(door.is_open(start + 100'000));
    EXPECT_EQ(door.enter(5, machine(1), start + 100'000), 1u);
    door.spoke(5);
    EXPECT_FALSE(Doorway({.most = 1}).enter(1, machine(1), start));
    door.leave(4);
    EXPECT_TRUE(door.is_open(start + 100'001));
}

TEST(Doorway, GreetingHasOneDeadline) {
    Doorway door({.most = 4, .greeting_us = 500'000});
    EXPECT_EQ(door.wakes_at(start), 0);
    EXPECT_FALSE(door.enter(1, machine(1), start));
    EXPECT_FALSE(door.enter(2, machine(1), start + 1000));
    door.spoke(1);  // which gives him no more time
    EXPECT_TRUE(door.late(start + 499'999).empty());
    EXPECT_EQ(door.wakes_at(start + 2000), start + 500'000);
    EXPECT_EQ(door.late(start + 500'000), std::vector<uint64_t>{1});
    door.leave(1);
    EXPECT_EQ(door.late(start + 501'000), std::vector<uint64_t>{2});
}

class DoorwayListening : public testing::Test {
  protected:
    void SetUp() override {
        listener_.reset(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        const int off = 0;
        setsockopt(listener_.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        sockaddr_in6 any{};
        any.sin6_family = AF_INET6;
        socklen_t size = sizeof any;
        ASSERT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
        ASSERT_EQ(listen(listener_.get(), 128), 0);
        ASSERT_EQ(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&any), &size), 0);
        port_ = any.sin6_port;
    }
    Fd connection() const {
        Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = port_;
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
        return fd;
    }
    bool waits() const {
        pollfd one{listener_.get(), POLLIN, 0};
        return poll(&one, 1, 1000) == 1;
    }
    Fd listener_;
    in_port_t port_ = 0;
};

TEST_F(DoorwayListening, KnowsWhereTheyComeFrom) {
    Doorway door;
    const Fd one = connection();
    ASSERT_TRUE(waits());
    const auto came = door.accept(listener_.get(), start);
    ASSERT_TRUE(came);
    EXPECT_EQ(came->from,
              (Doorway::Origin{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}));
    EXPECT_FALSE(door.accept(listener_.get(), start));
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_TRUE(door.is_open(start));
}

TEST_F(DoorwayListening, MoreThanThereIsTimeForWait) {
    Doorway door({.most_a_second = 40});  // of which a quarter may come at once
    std::vector<Fd> all;
    for (int i = 0; i < 20; i++) all.push_back(connection());
    int let_in = 0;
    ASSERT_TRUE(waits());
    while (door.accept(listener_.get(), start)) let_in++;
    EXPECT_EQ(let_in, 10);
    EXPECT_FALSE(door.is_open(start));
    EXPECT_EQ(door.wakes_at(start), start + 10'000);
    while (door.accept(listener_.get(), start + 100'000)) let_in++;
    EXPECT_EQ(let_in, 14);
}

// A listener with somebody in its queue stays readable: whoever waits for it would spin.
TEST_F(DoorwayListening, RestsWhereThereAreNoDescriptors) {
    Doorway door;
    const Fd one = connection();
    ASSERT_TRUE(waits());
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none{3, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const bool came = door.accept(listener_.get(), start).has_value();
    setrlimit(RLIMIT_NOFILE, &before);
    EXPECT_FALSE(came);
    EXPECT_FALSE(door.is_open(start + 99'999));
    EXPECT_EQ(door.wakes_at(start), start + 100'000);
    EXPECT_TRUE(door.is_open(start + 100'000));
    EXPECT_TRUE(door.accept(listener_.get(), start + 100'000));
}

// The kernel keeps who says nothing, and gives him up.
TEST_F(DoorwayListening, WhoSaysNothingIsNotAccepted) {
    ghost::accept_only_who_speaks(listener_.get());
    Doorway door;
    const Fd mute = connection(), speaks = connection();
    ASSERT_EQ(send(speaks.get(), "x", 1, MSG_NOSIGNAL), 1);
    ASSERT_TRUE(waits());
    const auto came = door.accept(listener_.get(), start);
    ASSERT_TRUE(came);
    char byte = 0;
    EXPECT_EQ(recv(came->fd.get(), &byte, 1, 0), 1);
    EXPECT_FALSE(door.accept(listener_.get(), start));
}

TEST(LogSeldom, FirstIsALineThenACount) {
    const std::string path = testing::TempDir() + "seldom." + std::to_string(getpid());
    ASSERT_EQ(setenv("GHOST_LOG", path.c_str(), 1), 0);
    ghost::log::Seldom seldom;
    for (int64_t i = 0; i < 1000; i++)
        seldom.write(ghost::log::Level::warning, "knock", start + i * 10'000);
    seldom.write(ghost::log::Level::warning, "knock", start + 60'000'000);
    seldom.write(ghost::log::Level::warning, "knock", start + 120'000'000);
    unsetenv("GHOST_LOG");
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    unlink(path.c_str());
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    ASSERT_EQ(lines.size(), 3u) << text.str();
    EXPECT_TRUE(lines[0].ends_with("knock")) << lines[0];
    EXPECT_TRUE(lines[1].ends_with("knock (and 999 more like it)")) << lines[1];
    EXPECT_TRUE(lines[2].ends_with("knock")) << lines[2];
}

}  // namespace
