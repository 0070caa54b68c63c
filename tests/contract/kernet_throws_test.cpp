// SPDX-License-Identifier: BSD-3-Clause
// No exception leaves a function of libkernet: memory runs out in those that do not speak with a
// manager.
#include "kernet-btl/include/kernet.h"
#include "tests/contract/kernet_cluster.hpp"
#include "tests/contract/out_of_memory.hpp"

namespace {

using kernettest::Cluster;
using throwing::until_it_succeeds;

constexpr int limit = 60'000;

class KernetThrows : public testing::Test {
  protected:
    void SetUp() override { ASSERT_NE(node_, nullptr) << kernet_error(); }
    ~KernetThrows() override { kernet_close(node_); }
    Cluster cluster_{1};
    kernet_node* node_ = kernet_open(cluster_.address(0).c_str());
};

TEST_F(KernetThrows, ClassesWithoutMemory) {
    const std::string name(100, 'n');
    const kernet_class properties{sizeof(kernet_class), name.c_str(), KERNET_FIFO, 0, nullptr};
    EXPECT_GT(until_it_succeeds("kernet_register_class",
                                [&] { return kernet_register_class(node_, &properties) < 0; }),
              0);
}

TEST_F(KernetThrows, PollingWithoutMemory) {
    kernet_stream stream = 0;
    ASSERT_EQ(kernet_create(node_, KERNET_FIFO, 0, &stream), 0) << kernet_error();
    const int socket = kernet_attach(node_, stream, KERNET_BOTH);
    ASSERT_GT(socket, 0) << kernet_error();
    kernet_pollsocket polled{socket, KERNET_CAN_SEND, 0};
    EXPECT_GT(
        until_it_succeeds("kernet_poll", [&] { return kernet_poll(node_, &polled, 1, limit) < 0; }),
        0);
    EXPECT_EQ(polled.revents, KERNET_CAN_SEND);
}

// A failure that cannot even be described is one still.
TEST_F(KernetThrows, FailuresWithoutMemory) {
    void* handle = nullptr;
    size_t size = 0;
    char byte = 0;
    for (long n = 0; n < 50; n++) {
        throwing::left = n;
        EXPECT_EQ(kernet_suspend(node_, 4711, &handle, &size), -1);
        EXPECT_EQ(kernet_send(node_, 4711, "x", 1, 0), -1);
        EXPECT_EQ(kernet_recv(node_, 4711, &byte, 1, 0), -1);
        EXPECT_EQ(kernet_wait(node_, 4711, 0), -1);
        EXPECT_EQ(kernet_unattach(node_, 4711, 0), -1);
        EXPECT_EQ(kernet_set_mode(node_, 4711, KERNET_BYTES), -1);
        EXPECT_EQ(kernet_channel_recv(node_, 20, nullptr, nullptr, 0, &byte, 1, 0), -1);
        throwing::left = -1;
        EXPECT_STRNE(kernet_error(), "");
    }
}

}  // namespace
