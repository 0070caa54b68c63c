// SPDX-License-Identifier: BSD-3-Clause
// Messages with one descriptor: it arrives, and nothing else that comes beside it stays open.
#include "base/descriptor_message.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <gtest/gtest.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

namespace ghost {
namespace {

struct Pair {
    Pair() {
        int ends[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        here.reset(ends[0]);
        there.reset(ends[1]);
    }
    Fd here, there;
};

size_t open_descriptors() {
    namespace fs = std::filesystem;
    return static_cast<size_t>(
        std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

// As a stranger may: as many as he likes.
void send_many(int socket, size_t count) {
    alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
    char byte = 'm';
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    const std::array<int, 8> fds{};  // standard input
    std::memcpy(CMSG_DATA(header), fds.data(), count * sizeof(int));
    ASSERT_EQ(::sendmsg(socket, &message, 0), 1);
}

TEST(DescriptorMessage, CarriesOneOrNone) {
    Pair pair;
    const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(send_with_descriptor(pair.here.get(), "one", 3, null.get()), 3);
    ASSERT_EQ(send_with_descriptor(pair.here.get(), "none", 4, -1), 4);
    char text[8] = {};
    auto one = receive_with_descriptor(pair.there.get(), text, sizeof text);
    EXPECT_EQ(std::string(text, 3), "one");
    EXPECT_EQ(one.size, 3);
    EXPECT_TRUE(one.whole);
    ASSERT_TRUE(one.fd.valid());
    EXPECT_EQ(::fcntl(one.fd.get(), F_GETFD), FD_CLOEXEC);
    EXPECT_EQ(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(one.fd.get())),
              "/dev/null");
    const auto none = receive_with_descriptor(pair.there.get(), text, sizeof text);
    EXPECT_EQ(none.size, 4);
    EXPECT_TRUE(none.whole);
    EXPECT_FALSE(none.fd.valid());
}

TEST(DescriptorMessage, WhatIsTooMuchIsClosed) {
    Pair pair;
    const size_t before = open_descriptors();
    for (const size_t count : {2U, 3U, 8U}) {
        send_many(pair.here.get(), count);
        char byte = 0;
        const auto got = receive_with_descriptor(pair.there.get(), &byte, 1);
        EXPECT_EQ(got.size, 1);
        EXPECT_FALSE(got.whole) << count;
    }
    EXPECT_EQ(open_descriptors(), before);
}

TEST(DescriptorMessage, CutTextIsNotWhole) {
    Pair pair;
    ASSERT_EQ(send_with_descriptor(pair.here.get(), "four", 4, -1), 4);
    char text[2];
    EXPECT_FALSE(receive_with_descriptor(pair.there.get(), text, sizeof text).whole);
    pair.here.reset();
    EXPECT_EQ(receive_with_descriptor(pair.there.get(), text, sizeof text).size, 0);
    EXPECT_EQ(send_with_descriptor(pair.there.get(), "x", 1, -1), -1);  // and no SIGPIPE
    EXPECT_EQ(errno, EPIPE);
}

}  // namespace
}  // namespace ghost
