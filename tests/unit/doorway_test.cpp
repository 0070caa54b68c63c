// SPDX-License-Identifier: BSD-3-Clause
// Who has not proved himself costs next to nothing, and keeps nobody out. The clock is the test's.
#include <gtest/gtest.h>

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <fstream>
#include <netinet/in.h>
#include <map>
#include <poll.h>
#include <random>
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

// Comings and goings by chance, beside a list of them that is gone through each time.
TEST(Doorway, RulesHoldWhateverComes) {
    struct Known {
        uint64_t id;
        uint8_t from;
        int64_t since;
        bool spoken;
    };
    for (unsigned seed = 0; seed < 20; seed++) {
        const Doorway::Limits limits{
            .most = 8, .greeting_us = 50'000, .mute_us = 1'000 * (seed % 3), .spoken_us = 9'000};
        Doorway door(limits);
        std::vector<Known> known;  // oldest first
        std::mt19937 chance(seed);
        const auto forget = [&](uint64_t id) {
            std::erase_if(known, [id](const Known& one) { return one.id == id; });
        };
        const auto places = [&](uint8_t from) {
            return std::count_if(known.begin(), known.end(),
                                 [&](const Known& one) { return one.from == from; });
        };
        int64_t now = start, crowded_out = 0;
        for (uint64_t id = 1; id < 5'000; id++) {
            now += chance() % 3'000;
            const auto some = [&] { return known[chance() % known.size()].id; };
            if (chance() % 4 == 0 && !known.empty()) {
                const uint64_t speaks = some();
                door.spoke(speaks);
                for (Known& one : known) one.spoken |= one.id == speaks;
            }
            if (chance() % 8 == 0 && !known.empty()) {
                const uint64_t goes = some();
                door.leave(goes);
                forget(goes);
            }
            for (const uint64_t late : door.late(now)) {
                ASSERT_LE(known.front().since + limits.greeting_us, now);
                ASSERT_EQ(late, known.front().id);
                door.leave(late);
                forget(late);
            }
            ASSERT_TRUE(known.empty() || known.front().since + limits.greeting_us > now);
            // Whoever is woken at that time finds what it says.
            if (const int64_t wakes = door.wakes_at(now); wakes != 0 && !door.is_open(now)) {
                ASSERT_TRUE(door.is_open(wakes) || !door.late(wakes).empty()) << seed << " " << id;
            }
            if (!door.is_open(now)) continue;
            const auto from = static_cast<uint8_t>(chance() % 3 == 0 ? chance() % 4 : 9);
            if (const auto out = door.enter(id, machine(from), now)) {
                const auto his = std::find_if(known.begin(), known.end(),
                                              [&](const Known& one) { return one.id == *out; });
                ASSERT_NE(his, known.end());
                ASSERT_EQ(known.size(), limits.most);
                ASSERT_LE(his->since + (his->spoken ? limits.spoken_us : limits.mute_us), now);
                for (const Known& one : known) ASSERT_LE(places(one.from), places(his->from));
                for (const Known& one : known) {
                    if (one.from == his->from && !one.spoken) {
                        ASSERT_FALSE(his->spoken);
                    }
                }
                forget(*out);
                crowded_out++;
            }
            known.push_back({id, from, now, false});
            ASSERT_EQ(door.strangers(), known.size());
            ASSERT_LE(known.size(), limits.most);
        }
        EXPECT_GT(crowded_out, 100) << seed;
    }
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
