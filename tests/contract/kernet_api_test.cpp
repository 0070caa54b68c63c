// SPDX-License-Identifier: BSD-3-Clause
// kernet.h and kernet.hpp as a program of somebody else sees them: verbs, errno, classes, polling.
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "kernet-btl/include/kernet/kernet.hpp"
#include "tests/contract/kernet_cluster.hpp"

namespace {

using kernet::Node;
using kernet::Socket;
using kernettest::Cluster;

constexpr int limit = 60'000;

TEST(KernetApi, NoManagerIsAnError) {
    EXPECT_EQ(kernet_open("@kernet-test/nobody-is-here"), nullptr);
    EXPECT_EQ(errno, ECONNREFUSED);
    EXPECT_NE(std::string(kernet_error()), "");
}

class KernetApiMore : public testing::Test {
  protected:
    Cluster cluster_{2};
    void SetUp() override {
        ASSERT_TRUE(made_a_) << made_a_.failure().text;
        ASSERT_TRUE(made_b_) << made_b_.failure().text;
    }
    kernet::Result<Node> made_a_ = Node::open(cluster_.address(0).c_str());
    kernet::Result<Node> made_b_ = Node::open(cluster_.address(1).c_str());
    Node &a_ = *made_a_, &b_ = *made_b_;
};

TEST_F(KernetApiMore, StreamOfAClassIsFiltered) {
    EXPECT_EQ(a_.name(), "a");
    const auto descriptor = a_.register_class("pipe", KERNET_DIRECT, 2);
    ASSERT_TRUE(descriptor);
    EXPECT_EQ(a_.register_class("pipe", KERNET_DIRECT, 100'000).failure().code, EINVAL);
    const auto stream = a_.create(*descriptor);
    ASSERT_TRUE(stream) << stream.failure().text;
    EXPECT_EQ(a_.create(*descriptor + 1).failure().code, ENOENT);
    auto made_one = a_.attach(*stream), made_two = b_.attach(*stream);
    ASSERT_TRUE(made_one && made_two) << kernet_error();
    Socket &one = *made_one, &two = *made_two;
    ASSERT_TRUE(one.wait(limit)) << kernet_error();
    auto info = b_.info(*stream);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->type, KERNET_DIRECT);
    EXPECT_EQ(info->sockets, 2u);
    EXPECT_EQ(info->connected, 2u);
    EXPECT_STREQ(info->class_name, "pipe");

    EXPECT_EQ(two.recv(0).failure().code, EAGAIN);
    EXPECT_EQ(two.recv(1).failure().code, ETIMEDOUT);
    const std::string text(300'000, 't');
    ASSERT_TRUE(one.send(text, limit)) << kernet_error();
    char little[10];
    EXPECT_EQ(two.recv(little, sizeof little, limit).failure().code, EMSGSIZE);
    EXPECT_EQ(*two.recv(limit), text);

    auto handle = two.suspend();
    ASSERT_TRUE(handle) << kernet_error();
    ASSERT_TRUE(one.send("meanwhile", 0)) << kernet_error();
    EXPECT_EQ(a_.info(*stream)->suspended, 1u);
    auto woken = a_.wakeup(*handle);
    ASSERT_TRUE(woken) << kernet_error();
    Socket& three = *woken;
    std::vector<kernet_pollsocket> polled{{three.number(), KERNET_CAN_RECV, 0}};
    ASSERT_EQ(*a_.poll(polled, limit), 1u);
    EXPECT_EQ(polled[0].revents, KERNET_CAN_RECV);
    EXPECT_EQ(*three.recv(limit), "meanwhile");
    EXPECT_EQ(b_.wakeup(*handle).failure().code, EPERM);
    EXPECT_EQ(b_.wakeup("no handle").failure().code, EBADMSG);
    ASSERT_TRUE(three.unattach(limit));
    EXPECT_EQ(one.recv(limit).failure().code, EPIPE);
}

TEST_F(KernetApiMore, GatherScatterAndByteReads) {
    const auto stream = a_.create(KERNET_DIRECT, 2);
    ASSERT_TRUE(stream);
    auto made_one = a_.attach(*stream), made_two = b_.attach(*stream);
    ASSERT_TRUE(made_one && made_two) << kernet_error();
    Socket &one = *made_one, &two = *made_two;
    ASSERT_TRUE(one.wait(limit));
    char left[] = "abc", right[] = "defgh";
    ASSERT_TRUE(one.send(std::vector<iovec>{{left, 3}, {right, 5}}, limit));
    char head[2], rest[10] = {};
    EXPECT_EQ(*two.recv(std::vector<iovec>{{head, 2}, {rest, 9}}, limit), 8u);
    EXPECT_EQ(std::string(head, 2) + rest, "abcdefgh");
    EXPECT_EQ(kernet_sendv(a_.get(), one.number(), nullptr, -1, 0), -1);
    EXPECT_EQ(errno, EINVAL);
    ASSERT_TRUE(two.set_mode(KERNET_BYTES));
    ASSERT_TRUE(one.send("1234", limit) && one.send("5678", limit));
    std::string all;
    while (all.size() < 8) {
        char some[3];
        const auto got = two.recv(some, sizeof some, limit);
        ASSERT_TRUE(got) << got.failure().text;
        all.append(some, *got);
    }
    EXPECT_EQ(all, "12345678");
    EXPECT_EQ(a_.destroy(*stream + 1).failure().code, ENOENT);
}

TEST_F(KernetApiMore, ChannelFailsWhenManagerIsGone) {
    ASSERT_TRUE(b_.open_channel(30)) << kernet_error();
    ASSERT_TRUE(a_.send("b", 30, 7, "bytes")) << kernet_error();
    const auto message = b_.recv(30, limit);
    ASSERT_TRUE(message) << kernet_error();
    EXPECT_EQ(message->type, 7u);
    EXPECT_EQ(message->from, "a");
    EXPECT_EQ(message->bytes, "bytes");
    EXPECT_EQ(a_.send("b", 31, 7, "bytes").failure().code, EPERM);
    EXPECT_EQ(b_.recv(31, 0).failure().code, ENOENT);
    EXPECT_EQ(b_.open_channel(100'000).failure().code, EINVAL);
    cluster_.end(0, SIGKILL);
    kernet_stream stream;
    while (kernet_create(a_.get(), KERNET_FIFO, 0, &stream) == 0) {
    }
    EXPECT_EQ(errno, ENOTCONN) << kernet_error();
}

}  // namespace
