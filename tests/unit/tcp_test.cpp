// SPDX-License-Identifier: BSD-3-Clause
#include "base/tcp.hpp"

#include <array>
#include <chrono>
#include <gtest/gtest.h>
#include <thread>

#include "base/fd.hpp"

namespace ghost {
namespace {

// Two ends over the loopback.
std::array<Fd, 2> connection() {
    Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    auto* address = reinterpret_cast<sockaddr*>(&at);
    EXPECT_EQ(::bind(listener.get(), address, size), 0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener.get(), address, &size), 0);
    Fd one(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(one.get(), address, size), 0);
    return {std::move(one), Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC))};
}

// Between sending and the answer there is always a moment: whoever looks just then, each time, must
// not take a sound connection for a dead one. (A node that is cut off: fault_matrix, LostNode.)
TEST(Tcp, WhatWasSentJustNowIsNotUnanswered) {
    auto ends = connection();
    for (int i = 0; i < 5; ++i) {
        const int later = 0;  // (40 ms: the moment is long)
        ::setsockopt(ends[1].get(), IPPROTO_TCP, TCP_QUICKACK, &later, sizeof later);
        std::this_thread::sleep_for(std::chrono::milliseconds(60));
        ASSERT_EQ(::send(ends[0].get(), "ping", 4, 0), 4);
        EXPECT_FALSE(is_unanswered(ends[0].get(), 50'000));
    }
}

// Its process reads nothing, and the window is full.
TEST(Tcp, NodeOfAProcessThatDoesNotReadAnswers) {
    auto ends = connection();
    const std::array<char, 65536> block{};
    while (::send(ends[0].get(), block.data(), block.size(), MSG_DONTWAIT) > 0) {
    }
    for (int i = 0; i < 10; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        EXPECT_FALSE(is_unanswered(ends[0].get(), 900'000));
    }
}

TEST(Tcp, WhatIsNoConnectionIsNotUnanswered) {
    EXPECT_FALSE(is_unanswered(-1, 0));
    EXPECT_FALSE(is_unanswered(Fd(::socket(AF_UNIX, SOCK_STREAM, 0)).get(), 0));
}

}  // namespace
}  // namespace ghost
