// SPDX-License-Identifier: BSD-3-Clause
// kernet.h and kernet.hpp as a program of somebody else sees them: verbs, errno, classes, polling.
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "kernet-btl/include/kernet/kernet.hpp"
#include "tests/contract/kernet_cluster.hpp"

namespace {

using kernet::v1::Node;
using kernet::v1::Socket;
using kernettest::Cluster;

constexpr int limit = 60'000;

TEST(KernetApi, NoManagerIsAnError) {
    EXPECT_EQ(kernet_open("@kernet-test/nobody-is-here"), nullptr);
    EXPECT_EQ(errno, ECONNREFUSED);
    EXPECT_NE(std::string(kernet_error()), "");
}

class KernetApi2 : public testing::Test {
  protected:
    Cluster cluster_{2};
    Node a_{cluster_.address(0).c_str()}, b_{cluster_.address(1).c_str()};
};

TEST_F(KernetApi2, AStreamOfAClass) {
    ASSERT_TRUE(a_ && b_);
    EXPECT_STREQ(kernet_node_name(a_.get()), "a");
    const kernet_class pipe{"pipe", KERNET_DIRECT, 2, nullptr};
    const int descriptor = kernet_register_class(a_.get(), &pipe);
    ASSERT_GE(descriptor, 0);
    kernet_stream stream = 0;
    ASSERT_EQ(kernet_create_of(a_.get(), descriptor, &stream), 0) << kernet_error();
    EXPECT_EQ(kernet_create_of(a_.get(), descriptor + 1, &stream), -1);
    EXPECT_EQ(errno, ENOENT);
    Socket one = a_.attach(stream), two = b_.attach(stream);
    ASSERT_TRUE(one && two) << kernet_error();
    ASSERT_TRUE(one.wait(limit)) << kernet_error();
    kernet_info info;
    ASSERT_EQ(kernet_get_info(b_.get(), stream, &info), 0);
    EXPECT_EQ(info.type, KERNET_DIRECT);
    EXPECT_EQ(info.sockets, 2u);
    EXPECT_EQ(info.connected, 2u);
    EXPECT_STREQ(info.class_name, "pipe");

    EXPECT_FALSE(two.recv(0));
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_FALSE(two.recv(1));
    EXPECT_EQ(errno, ETIMEDOUT);
    const std::string text(300'000, 't');
    ASSERT_TRUE(one.send(text, limit)) << kernet_error();
    char little[10];
    EXPECT_EQ(kernet_recv(b_.get(), two.number(), little, sizeof little, limit), -1);
    EXPECT_EQ(errno, EMSGSIZE);
    EXPECT_EQ(two.recv(limit), text);

    auto handle = two.suspend();
    ASSERT_TRUE(handle) << kernet_error();
    ASSERT_TRUE(one.send("meanwhile", 0)) << kernet_error();
    ASSERT_EQ(kernet_get_info(a_.get(), stream, &info), 0);
    EXPECT_EQ(info.suspended, 1u);
    Socket three = a_.wakeup(*handle);
    ASSERT_TRUE(three) << kernet_error();
    kernet_pollsocket polled{three.number(), KERNET_CAN_RECV, 0};
    ASSERT_EQ(kernet_poll(a_.get(), &polled, 1, limit), 1);
    EXPECT_EQ(polled.revents, KERNET_CAN_RECV);
    EXPECT_EQ(three.recv(limit), "meanwhile");
    EXPECT_FALSE(b_.wakeup(*handle));
    EXPECT_EQ(errno, EPERM);
    EXPECT_FALSE(b_.wakeup("no handle"));
    EXPECT_EQ(errno, EBADMSG);
    ASSERT_TRUE(three.unattach(limit));
    EXPECT_FALSE(one.recv(limit));
    EXPECT_EQ(errno, EPIPE);
}

TEST_F(KernetApi2, ChannelsAndAManagerThatIsGone) {
    ASSERT_TRUE(a_ && b_);
    ASSERT_EQ(kernet_channel_open(b_.get(), 30), 0) << kernet_error();
    ASSERT_EQ(kernet_channel_send(a_.get(), "b", 30, 7, "bytes", 5), 0) << kernet_error();
    unsigned type = 0;
    char from[8], bytes[8];
    ASSERT_EQ(
        kernet_channel_recv(b_.get(), 30, &type, from, sizeof from, bytes, sizeof bytes, limit), 5);
    EXPECT_EQ(type, 7u);
    EXPECT_STREQ(from, "a");
    EXPECT_EQ(kernet_channel_send(a_.get(), "b", 31, 7, "bytes", 5), -1);
    EXPECT_EQ(errno, EPERM);
    cluster_.end(0, SIGKILL);
    kernet_stream stream;
    while (kernet_create(a_.get(), KERNET_FIFO, 0, &stream) == 0) {
    }
    EXPECT_EQ(errno, ENOTCONN) << kernet_error();
}

}  // namespace
