// SPDX-License-Identifier: BSD-3-Clause
// Control sockets carry texts and descriptors, and report a closed other end.
#include "base/control_socket.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

namespace ghost {
namespace {

TEST(ControlSocket, CarriesTextAndDescriptor) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    Fd reader(pipe_ends[0]), writer(pipe_ends[1]);
    ASSERT_TRUE(pair->first.send_text("{\"rank\": 3}", {writer.get()}).ok());
    auto message = pair->second.receive(1000);
    ASSERT_TRUE(message.ok());
    EXPECT_EQ(message->text, "{\"rank\": 3}");
    ASSERT_EQ(message->fds.size(), 1u);
    ASSERT_EQ(write(message->fds[0].get(), "x", 1), 1);
    char got = 0;
    ASSERT_EQ(read(reader.get(), &got, 1), 1);
    EXPECT_EQ(got, 'x');
}

TEST(ControlSocket, ClosedPeerIsPeerLost) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    pair->first.close();
    auto message = pair->second.receive(1000);
    ASSERT_FALSE(message.ok());
    EXPECT_EQ(message.error().code, Code::peer_lost);
}

TEST(ControlSocket, NothingInTimeIsTimeout) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    auto message = pair->second.receive(1);
    ASSERT_FALSE(message.ok());
    EXPECT_EQ(message.error().code, Code::timeout);
}

TEST(ControlSocket, PathIsPrivateAndRemoved) {
    std::string path = testing::TempDir() + "/ghost-control-" + std::to_string(getpid());
    {
        auto listener = ControlListener::listen(path);
        ASSERT_TRUE(listener.ok()) << listener.error().message();
        struct stat st {};
        ASSERT_EQ(stat(path.c_str(), &st), 0);
        EXPECT_EQ(st.st_mode & 0777, 0600u);
        auto client = ControlSocket::connect(path);
        ASSERT_TRUE(client.ok());
        auto server = listener->accept();
        ASSERT_TRUE(server.ok());
        ASSERT_TRUE(client->send_text("{}").ok());
        EXPECT_TRUE(server->receive(1000).ok());
    }
    struct stat st {};
    EXPECT_NE(stat(path.c_str(), &st), 0);
}

TEST(ControlSocket, MalformedPacketIsCorrupt) {
    auto pair = control_pair();
    ASSERT_TRUE(pair.ok());
    ASSERT_EQ(write(pair->first.fd(), "{not json", 9), 9);
    auto message = pair->second.receive(1000);
    ASSERT_FALSE(message.ok());
    EXPECT_EQ(message.error().code, Code::corrupt);
}

}  // namespace
}  // namespace ghost
