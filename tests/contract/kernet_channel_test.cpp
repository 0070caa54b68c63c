// SPDX-License-Identifier: BSD-3-Clause
// Channels between nodes: what is sent arrives in order or is an error, whoever ends or is cut.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <map>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <thread>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "kernet-btl/streams/channel.hpp"
#include "kernet-btl/wire/channel.hpp"
#include "tests/contract/kernet_cluster.hpp"
#include "tests/contract/strangers.hpp"

namespace {

using ghost::Code;
using kernet::NodeState;
using kernet::Status;
using kernet::TcpChannel;
using kernet::TcpChannelConfig;
using kernettest::free_port;

constexpr int64_t limit_us = 30'000'000;

struct Node final : kernet::ChannelListener {
    bool message(int from, uint16_t channel, uint16_t type, std::string_view bytes) override {
        if (channel == 9) return false;
        got.push_back({from, channel, type, std::string(bytes)});
        return true;
    }
    void delivered(uint64_t number, const Status& status) override {
        fates.insert({number, status});
    }
    void node_changed(int node, NodeState state) override { states[node].push_back(state); }

    struct Got {
        int from;
        uint16_t channel, type;
        std::string bytes;
        bool operator==(const Got&) const = default;
    };
    std::vector<Got> got;
    std::map<uint64_t, Status> fates;
    std::map<int, std::vector<NodeState>> states;
    std::unique_ptr<TcpChannel> channel;
};

class Channels : public testing::Test {
  protected:
    void SetUp() override {
        config_.cluster = "test";
        config_.secret_hex = std::string(64, 'b');
        config_.retry_us = 20'000;
        for (const char* name : {"a", "b", "c"}) {
            config_.nodes.push_back({name, {"127.0.0.1", free_port()}});
        }
    }
    void begin(int number, const std::string& secret = "") {
        TcpChannelConfig config = config_;
        config.self = number;
        if (!secret.empty()) config.secret_hex = secret;
        auto made = TcpChannel::create(config, nodes_[number]);
        ASSERT_TRUE(made.ok()) << made.error().message();
        nodes_[number].channel = std::move(*made);
    }
    template <typename Condition>
    bool until(Condition condition) {
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!condition()) {
            if (ghost::monotonic_us() > end) return false;
            std::vector<pollfd> fds;
            for (Node& node : nodes_) {
                if (node.channel) fds.push_back({node.channel->fd(), POLLIN, 0});
            }
            poll(fds.data(), fds.size(), 10);
            for (Node& node : nodes_) {
                if (node.channel) node.channel->service();
            }
        }
        return true;
    }
    bool up(int a, int b) {
        return nodes_[a].channel->state(b) == NodeState::up &&
               nodes_[b].channel->state(a) == NodeState::up;
    }
    TcpChannelConfig config_;
    Node nodes_[3];
};

TEST_F(Channels, MessagesArriveInOrderAndAreConfirmed) {
    for (int i : {0, 1, 2}) begin(i);
    ASSERT_TRUE(until([&] { return up(0, 1) && up(1, 2) && up(0, 2); }));
    std::vector<Node::Got> expected;
    for (uint64_t i = 1; i <= 200; i++) {
        const std::string bytes(i * 37 % 70'000, static_cast<char>('a' + i % 26));
        for (int from : {0, 1}) {
            ASSERT_TRUE(nodes_[from].channel->send(2, 5, 6, bytes, i).ok());
        }
        expected.push_back({1, 5, 6, bytes});
    }
    ASSERT_TRUE(
        until([&] { return nodes_[0].fates.size() == 200 && nodes_[1].fates.size() == 200; }));
    std::vector<Node::Got> of_b;
    for (const auto& got : nodes_[2].got) {
        if (got.from == 1) of_b.push_back(got);
    }
    EXPECT_EQ(of_b, expected);
    for (const auto& [number, status] : nodes_[0].fates) EXPECT_TRUE(status.ok());
    const std::string longest(kernet::max_channel_message, 'x');
    ASSERT_TRUE(nodes_[2].channel->send(0, 1, 1, longest, 1).ok());
    ASSERT_TRUE(until([&] { return !nodes_[0].got.empty(); }));
    EXPECT_EQ(nodes_[0].got[0].bytes, longest);
}

TEST_F(Channels, UndeliverableMessageIsAnError) {
    begin(0);
    begin(1);
    ASSERT_TRUE(until([&] { return up(0, 1); }));
    auto& channel = *nodes_[0].channel;
    EXPECT_EQ(channel.send(7, 1, 1, "x", 1).error().code, Code::not_found);
    EXPECT_EQ(channel.send(2, 1, 1, "x", 1).error().code, Code::peer_lost);
    EXPECT_EQ(
        channel.send(1, 1, 1, std::string(kernet::max_channel_message + 1, 'x'), 1).error().code,
        Code::invalid);
    ASSERT_TRUE(channel.send(1, 9, 1, "nobody takes channel 9", 77).ok());
    ASSERT_TRUE(until([&] { return nodes_[0].fates.count(77) > 0; }));
    EXPECT_EQ(nodes_[0].fates.at(77).error().code, Code::refused);

    ASSERT_TRUE(channel.send(1, 1, 1, "it ends before it takes this", 78).ok());
    nodes_[1].channel.reset();
    ASSERT_TRUE(until([&] { return nodes_[0].fates.count(78) > 0; }));
    EXPECT_EQ(nodes_[0].fates.at(78).error().code, Code::peer_lost);
}

TEST_F(Channels, LeavingPeerIsToldFromSilentPeer) {
    for (int i : {0, 1, 2}) begin(i);
    ASSERT_TRUE(until([&] { return up(0, 1) && up(1, 2) && up(0, 2); }));
    // It says that it leaves; then somebody else is simply gone: nobody listens there.
    nodes_[1].channel->leave();
    nodes_[1].channel.reset();
    ASSERT_TRUE(until([&] {
        return nodes_[0].channel->state(1) == NodeState::gone &&
               nodes_[2].channel->state(1) == NodeState::gone;
    }));
    nodes_[0].channel.reset();
    ASSERT_TRUE(until([&] { return nodes_[2].channel->state(0) == NodeState::gone; }));
    begin(0);
    begin(1);
    ASSERT_TRUE(until([&] { return up(0, 1) && up(1, 2) && up(0, 2); }));
}

// The first of a node's addresses leads nowhere: the others are tried. That nobody listens is proof
// of its end only where it has been found before.
TEST_F(Channels, PeerWithSeveralAddressesIsReached) {
    config_.nodes[1].at.host = "127.0.0.2";
    begin(1);
    config_.nodes[1].others = {config_.nodes[1].at};
    config_.nodes[1].at = {"127.0.0.1", free_port()};
    begin(0);
    ASSERT_TRUE(until([&] { return up(0, 1); }));
    for (NodeState state : nodes_[0].states[1]) EXPECT_NE(state, NodeState::gone);
    nodes_[1].channel.reset();
    ASSERT_TRUE(until([&] { return nodes_[0].channel->state(1) == NodeState::gone; }));
    std::swap(config_.nodes[1].at, config_.nodes[1].others[0]);
    begin(1);
    ASSERT_TRUE(until([&] { return up(0, 1); }));
}

bool sleeps(pid_t tid) {
    int call = -1;
    std::ifstream("/proc/self/task/" + std::to_string(tid) + "/syscall") >> call;
    return call == SYS_clock_nanosleep;
}

// Somebody else has the port for a moment: who connected to it when nobody listened there.
TEST_F(Channels, PortInUseIsRetried) {
    ghost::Fd other(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(config_.nodes[0].at.port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(bind(other.get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    ASSERT_EQ(listen(other.get(), 1), 0);
    std::thread leaves([&, opener = gettid()] {
        // It has found the port taken, and sleeps before it looks again.
        const int64_t end = ghost::monotonic_us() + limit_us;
        while (!sleeps(opener) && ghost::monotonic_us() < end) std::this_thread::yield();
        other.reset();
    });
    begin(0);
    leaves.join();
}

// Where the kernel gives those who connect the very ports that others listen at, a connection to
// one that has ended can meet itself.
TEST_F(Channels, ConnectionToItselfIsIgnored) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    std::thread([&] {
        ASSERT_EQ(unshare(CLONE_NEWNET), 0);  // of this thread only
        const ghost::Fd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        ifreq lo{};
        std::strcpy(lo.ifr_name, "lo");
        lo.ifr_flags = IFF_UP | IFF_RUNNING;
        ASSERT_EQ(ioctl(any.get(), SIOCSIFFLAGS, &lo), 0);
        std::ofstream("/proc/sys/net/ipv4/ip_local_port_range") << "40000 40001";
        config_.nodes.resize(2);
        config_.nodes[0].at.port = 41000;
        config_.nodes[1].at.port = 40000;
        config_.retry_us = 1000;
        begin(0);
        const int64_t end = ghost::monotonic_us() + 1'000'000;
        until([&] { return ghost::monotonic_us() > end; });
        EXPECT_EQ(nodes_[0].states[1], std::vector<NodeState>{NodeState::gone});
        std::atomic<bool> begun = false;
        std::unique_ptr<TcpChannel> second;
        TcpChannelConfig config = config_;
        config.self = 1;
        std::thread begins([&] {
            auto made = TcpChannel::create(config, nodes_[1]);
            EXPECT_TRUE(made.ok()) << made.error().message();
            if (made.ok()) second = std::move(*made);
            begun = true;
        });
        until([&] { return begun.load(); });
        begins.join();
        nodes_[1].channel = std::move(second);
        EXPECT_TRUE(until([&] { return up(0, 1); }));
        nodes_[0].channel.reset();
        nodes_[1].channel.reset();
    }).join();
}

TEST_F(Channels, ExpelledPeerStaysOut) {
    for (int i : {0, 1, 2}) begin(i);
    ASSERT_TRUE(until([&] { return up(0, 1) && up(1, 2) && up(0, 2); }));
    nodes_[0].channel->expel(2);
    nodes_[1].channel->expel(0);
    EXPECT_EQ(nodes_[0].channel->state(2), NodeState::gone);
    EXPECT_EQ(nodes_[1].channel->state(0), NodeState::gone);
    ASSERT_TRUE(until([&] { return nodes_[2].channel->state(0) == NodeState::unreachable; }));
    // Both sides have tried several times by now.
    ASSERT_TRUE(nodes_[1].channel->send(2, 5, 6, "still there", 1).ok());
    const int64_t later = ghost::monotonic_us() + 10 * config_.retry_us;
    ASSERT_TRUE(until([&] { return ghost::monotonic_us() > later; }));
    EXPECT_EQ(nodes_[0].channel->state(2), NodeState::gone);
    EXPECT_EQ(nodes_[1].channel->state(0), NodeState::gone);
    EXPECT_NE(nodes_[0].channel->state(1), NodeState::up);
    EXPECT_TRUE(up(1, 2));
    EXPECT_EQ(nodes_[1].fates.size(), 1u);
}

TEST_F(Channels, UnauthenticatedPeerIsIgnored) {
    begin(0);
    begin(1, std::string(64, 'c'));  // another secret
    begin(2);
    ASSERT_TRUE(until([&] { return up(0, 2); }));
    ASSERT_TRUE(until([&] { return nodes_[0].channel->state(1) == NodeState::unreachable; }));
    EXPECT_EQ(nodes_[0].channel->send(1, 1, 1, "x", 0).error().code, Code::peer_lost);
    // And bytes that are none of ours.
    ghost::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(nodes_[0].channel->port());
    ASSERT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const std::string noise(4096, '\x7f');
    ASSERT_GT(send(fd.get(), noise.data(), noise.size(), MSG_NOSIGNAL), 0);
    char byte;
    ASSERT_TRUE(
        until([&] { return recv(fd.get(), &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET; }));
    EXPECT_TRUE(up(0, 2));
    EXPECT_TRUE(nodes_[0].got.empty());
}

// A recorded HELLO is as good as a true one, and says nothing fresh: who has said no more is a
// stranger still.
TEST_F(Channels, RecordedHelloTakesOnePlace) {
    begin(1);
    const auto key = kernet::wire::HandshakeKey::make(config_.secret_hex, "channel test");
    ASSERT_TRUE(key.ok());
    kernet::wire::ChannelHello hello;
    hello.from = 0;
    hello.to = 1;
    hello.nonce = kernet::wire::random_nonce();
    seal(hello, nullptr, *key);
    const std::string words(reinterpret_cast<const char*>(&hello), sizeof hello);
    Strangers strangers(nodes_[1].channel->port());
    strangers.come(1100, words);
    ASSERT_EQ(strangers.came(), 1100u);
    EXPECT_TRUE(until([&] { return strangers.kept() <= 1; }));
    begin(0);
    const int64_t begun = ghost::monotonic_us();
    EXPECT_TRUE(until([&] { return up(0, 1); }));
    EXPECT_LT(ghost::monotonic_us() - begun, 900'000);
    // One that goes on as if a long frame came has its time like all others, and no room.
    kernet::wire::ChannelHeader header;
    header.length = 1'000'000;
    strangers.say({reinterpret_cast<const char*>(&header), sizeof header});
    EXPECT_TRUE(until([&] { return strangers.kept() == 0; }));
    EXPECT_LT(ghost::monotonic_us() - begun, 900'000);
    EXPECT_TRUE(up(0, 1));
}

TEST_F(Channels, DrippingConnectionsCostNoTime) {
    begin(1);
    Strangers strangers(nodes_[1].channel->port());
    strangers.come(800, "K");
    ASSERT_EQ(strangers.came(), 800u);
    EXPECT_TRUE(until([&] { return strangers.kept() <= 32; }));
    // Nobody has anything to say now: whoever waits for the channel sleeps.
    int rounds = 0;
    const int64_t end = ghost::monotonic_us() + 500'000;
    EXPECT_TRUE(until([&] {
        rounds++;
        return ghost::monotonic_us() > end;
    }));
    EXPECT_LT(rounds, 100);
    begin(0);
    const int64_t begun = ghost::monotonic_us();
    EXPECT_TRUE(until([&] { return up(0, 1); }));
    EXPECT_LT(ghost::monotonic_us() - begun, 900'000);
    EXPECT_TRUE(until([&] {
        strangers.say("N");
        return strangers.kept() == 0;
    }));
}

}  // namespace
