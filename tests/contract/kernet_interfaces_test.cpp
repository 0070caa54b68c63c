// SPDX-License-Identifier: BSD-3-Clause
// Nodes with several interfaces and addresses of either kind: which way is taken to a peer, and
// that there is always another one. Two ends in two network namespaces.
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <fstream>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/addresses.hpp"
#include "kernet-btl/link/net.hpp"
#include "tests/contract/kernet_ends.hpp"
#include "tests/contract/kernet_networks.hpp"

namespace {

using namespace kernet_test;
using ghost::by_quality;
using ghost::OwnAddress;

// 10.1.0.1/24 of 100 Mbit/s, 10.2.0.1/24 of 10 Gbit/s, a bridge of containers, and IPv6.
std::vector<OwnAddress> four_addresses() {
    return {{"slow", "10.1.0.1", AF_INET, {10, 1, 0, 1}, 24, 100, false},
            {"quick", "10.2.0.1", AF_INET, {10, 2, 0, 1}, 24, 10'000, false},
            {"bridge", "172.17.0.1", AF_INET, {172, 17, 0, 1}, 16, 0, false},
            {"quick",
             "fd00::1",
             AF_INET6,
             {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
             64,
             10'000,
             false}};
}

std::vector<std::string> ordered(const std::vector<std::string>& hosts, bool same_node = false) {
    std::vector<std::string> out;
    for (size_t i : by_quality(hosts, four_addresses(), same_node)) out.push_back(hosts[i]);
    return out;
}

using Hosts = std::vector<std::string>;

TEST(KernetAddresses, FastestCommonNetworkComesFirst) {
    EXPECT_EQ(ordered({"10.1.0.2", "10.2.0.2"}), (Hosts{"10.2.0.2", "10.1.0.2"}));
    EXPECT_EQ(ordered({"10.1.0.2", "fd00::2"}), (Hosts{"fd00::2", "10.1.0.2"}));
}

TEST(KernetAddresses, CommonNetworkComesBeforeRoute) {
    EXPECT_EQ(ordered({"192.168.7.7", "2001:db8::7", "10.1.0.2"}),
              (Hosts{"10.1.0.2", "192.168.7.7", "2001:db8::7"}));
    EXPECT_EQ(ordered({"10.2.1.2", "10.1.0.2"}), (Hosts{"10.1.0.2", "10.2.1.2"}));
}

// Bridges have the same address on every node; who connects to it meets itself.
TEST(KernetAddresses, OwnAddressIsNotThePeers) {
    EXPECT_EQ(ordered({"172.17.0.1", "192.168.7.7", "10.1.0.2"}),
              (Hosts{"10.1.0.2", "192.168.7.7", "172.17.0.1"}));
    EXPECT_EQ(ordered({"10.1.0.1", "192.168.7.7"}, true), (Hosts{"10.1.0.1", "192.168.7.7"}));
}

TEST(KernetAddresses, EqualAddressesKeepOrder) {
    EXPECT_EQ(ordered({"10.2.0.7", "fd00::7", "10.2.0.2"}),
              (Hosts{"10.2.0.7", "fd00::7", "10.2.0.2"}));
    EXPECT_EQ(ordered({"no address", "192.168.7.7"}), (Hosts{"no address", "192.168.7.7"}));
    EXPECT_TRUE(ordered({}).empty());
}

// Over two cables, by the link the parameter names.
class KernetInterfaces : public testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "network namespaces need root";
        networks_ = std::make_unique<Networks>(2);
        if (!networks_->ready()) GTEST_SKIP() << "no network namespaces with veth here";
    }
    void make(const std::string& interfaces, int64_t messages) {
        for (uint32_t rank : {0U, 1U}) {
            EndpointConfig config =
                config_of(rank, fmt::format("i{}-{}", getpid(), GetParam()), false, true);
            config.node_name = fmt::format("n{}", rank);
            config.if_include = interfaces;
            config.links = GetParam();
            config.dead_after_us = 2'000'000;
            config.connect_timeout_us = 500'000;
            sides_[rank] = networks_->inside(
                static_cast<int>(rank), [&] { return std::make_unique<Side>(config, messages); });
        }
    }
    void begin() {
        const Location at[] = {sides_[0]->location(), sides_[1]->location()};
        for (int i : {0, 1}) {
            networks_->inside(i, [&] {
                sides_[i]->begin(at[1 - i]);
                return true;
            });
        }
    }
    template <typename Condition>
    bool in_time(Condition&& condition) {
        const int64_t end = ghost::monotonic_us() + limit_us / 2;
        while (!condition() && ghost::monotonic_us() < end) usleep(1000);
        return condition();
    }
    void expect_all(int64_t messages) {
        EXPECT_TRUE(in_time([&] { return sides_[0]->done() && sides_[1]->done(); }));
        for (auto& side : sides_) {
            EXPECT_EQ(side->received(), messages);
            EXPECT_FALSE(side->wrong());
            EXPECT_TRUE(side->went_by(GetParam()));
            side->stop();
        }
    }
    // Bytes that rank 0 has received by a cable.
    uint64_t by_cable(int cable) {
        return networks_->inside(0, [&] {
            std::ifstream lines("/proc/thread-self/net/dev");
            const std::string name = fmt::format("cable{}:", cable);
            for (std::string word; lines >> word;) {
                uint64_t bytes = 0;
                if (word == name && lines >> bytes) return bytes;
            }
            return uint64_t{0};
        });
    }

    std::unique_ptr<Networks> networks_;
    std::unique_ptr<Side> sides_[2];
};

TEST_P(KernetInterfaces, AllInterfacesAreListed) {
    make("", 0);
    const Location at = sides_[0]->location();
    std::vector<std::string> hosts;
    for (const auto& address : at.tcp) hosts.push_back(address.host);
    EXPECT_EQ(hosts, (Hosts{Networks::ip4(0, 0), Networks::ip4(1, 0), Networks::ip6(0, 0),
                            Networks::ip6(1, 0)}));
}

TEST_P(KernetInterfaces, IPv6OnlyHostIsReached) {
    make("fd09::/64", 2000);
    ASSERT_EQ(sides_[0]->location().tcp.size(), 2U);
    begin();
    expect_all(2000);
}

TEST_P(KernetInterfaces, UnreachableAddressIsSkipped) {
    make("", 2000);
    ASSERT_TRUE(networks_->connect(false, 0));
    begin();
    expect_all(2000);
    EXPECT_GT(by_cable(1), 1'000'000U);
}

TEST_P(KernetInterfaces, DeadInterfaceIsLeft) {
    constexpr int64_t messages = 6000;
    make("", messages);
    for (auto& side : sides_) side->hold_at(messages / 2);  // there is always a rest for the other
    begin();
    EXPECT_TRUE(
        in_time([&] { return sides_[0]->received() > 500 && sides_[1]->received() > 500; }));
    EXPECT_FALSE(sides_[0]->done());
    const uint64_t before = by_cable(1);
    ASSERT_TRUE(networks_->connect(false, 0));
    for (auto& side : sides_) side->hold_at(messages);
    expect_all(messages);
    EXPECT_GT(by_cable(1), before + 1'000'000);
}

// What is not included is not even listened at.
TEST_P(KernetInterfaces, OthersAreNotListenedAt) {
    make("cable1", 0);
    const Location at = sides_[0]->location();
    ASSERT_EQ(at.tcp.size(), 2U);
    const auto answers = [&](const std::string& host) {
        return networks_->inside(1, [&] {
            auto fd = kernet::net::connect_tcp(host, at.tcp[0].port, {});
            EXPECT_TRUE(fd.ok());
            pollfd ready{fd->get(), POLLOUT, 0};
            EXPECT_EQ(poll(&ready, 1, 5000), 1) << host;
            return kernet::net::connect_error(*fd);
        });
    };
    for (const std::string& host : {Networks::ip4(1, 0), Networks::ip6(1, 0)})
        EXPECT_EQ(answers(host), 0) << host;
    for (const std::string& host : {Networks::ip4(0, 0), Networks::ip6(0, 0)})
        EXPECT_EQ(answers(host), ECONNREFUSED) << host;
}

INSTANTIATE_TEST_SUITE_P(All, KernetInterfaces, testing::Values("tcp", "udp"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
