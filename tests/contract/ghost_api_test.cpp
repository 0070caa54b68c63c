// SPDX-License-Identifier: BSD-3-Clause
// libghost's objects without a process: buffers, files, nodes, classes, errors; through ghost.hpp
// where that has them.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "ghost-core/include/ghost/ghost.hpp"
#include "tests/free_port.h"

namespace {

TEST(Api, BuffersGiveBackWhatWasWritten) {
    ghost::v1::Buffer buffer(1 << 20);
    ASSERT_FALSE(buffer.empty());
    ASSERT_TRUE(buffer.write("abc", 3));
    ASSERT_TRUE(buffer.write("def", 3));
    EXPECT_EQ(buffer.size(), 6U);
    char text[10] = {};
    EXPECT_EQ(buffer.read(text, 4), 4);
    EXPECT_EQ(buffer.read(text + 4, 4), 2);
    EXPECT_STREQ(text, "abcdef");
    EXPECT_EQ(buffer.read(text, 4), 0);
    buffer.rewind();
    EXPECT_EQ(buffer.read(text, 10), 6);
    buffer.clear();
    EXPECT_EQ(buffer.size(), 0U);
}

class ApiFolder : public ::testing::Test {
  protected:
    ApiFolder() {
        char name[] = "/tmp/ghost-api.XXXXXX";
        path_ = mkdtemp(name);
    }
    ~ApiFolder() override { std::filesystem::remove_all(path_); }
    std::string path_;
};

TEST_F(ApiFolder, FilesAreThereWhenTheyAreClosed) {
    const auto path = path_ + "/a";
    ghost_file* f = file_open(path.c_str());
    ASSERT_EQ(file_write(f, "hello", 5), 0);
    EXPECT_FALSE(std::filesystem::exists(path));
    char text[6] = {};
    EXPECT_EQ(file_read(f, text, 5), -1) << "it is being written";
    EXPECT_EQ(errno, EINVAL);
    ASSERT_EQ(file_close(f), 0);
    f = file_open(path.c_str());
    EXPECT_EQ(file_read(f, text, 5), 5);
    EXPECT_STREQ(text, "hello");
    EXPECT_EQ(file_close(f), 0);
    f = file_open((path_ + "/missing").c_str());
    EXPECT_EQ(file_read(f, text, 5), -1);
    EXPECT_EQ(errno, ENOENT);
    EXPECT_NE(std::string(ghost_error()).find("missing"), std::string::npos);
    EXPECT_EQ(file_close(f), 0);
}

TEST(Api, NodesTalkWhenTheyKnowTheChannel) {
    ssize_t got = 0;
    char text[6] = {};
    const uint16_t port = free_port();
    ASSERT_NE(port, 0);
    std::thread other([&] {
        ghost_node* here = ghost_node_open(nullptr, "channel", port);
        ASSERT_NE(here, nullptr) << ghost_error();
        got = network_read(here, text, 5);
        EXPECT_EQ(network_write(here, "back", 4), 0);
        ghost_node_close(here);
    });
    ghost_node* there = nullptr;
    for (int tries = 0; there == nullptr && tries < 500; tries++) {
        there = ghost_node_open("localhost", "channel", port);
        if (there == nullptr) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_NE(there, nullptr) << ghost_error();
    EXPECT_EQ(network_write(there, "hello", 5), 0);
    char answer[5] = {};
    EXPECT_EQ(network_read(there, answer, 4), 4);
    EXPECT_STREQ(answer, "back");
    ghost_node_close(there);
    other.join();
    EXPECT_EQ(got, 5);
    EXPECT_STREQ(text, "hello");
    EXPECT_EQ(ghost_node_open("localhost", "", port), nullptr);
    EXPECT_EQ(errno, EINVAL);
}

TEST(Api, MistakesAreToldAndCostNothing) {
    ghost::v1::Ghost g;
    EXPECT_EQ(plug_resource_object(777, g.get()), -1);
    EXPECT_EQ(errno, EINVAL);
    auto done = g.plug("lz4,level=many:/a");
    EXPECT_FALSE(done);
    EXPECT_NE(done.message().find("many"), std::string::npos) << done.message();
    EXPECT_EQ(ghost_set_then(g.get(), static_cast<ghost_then>(9)), -1);
    EXPECT_EQ(associate_network_to_ghost("x", "channel", 0, g.get()), -1);
    EXPECT_EQ(ghost_load_class("/no/such.so"), -1);
    EXPECT_EQ(export_process(g.get(), 1), -1);
    pid_t process = 0;
    EXPECT_FALSE(g.import_process(process));
}

int init(void**, ghost_use, const char*, const ghost_resource_host*) {
    return -EIO;
}
ssize_t read(void*, void*, size_t) {
    return -EIO;
}
int write(void*, const void*, size_t) {
    return -EIO;
}
int finalize(void*) {
    return -EIO;
}
void release(void*) {}

TEST(Api, ClassIdsAreTakenOnce) {
    static ghost_resource_class table = {2000,  "broken", init,    read,
                                         write, finalize, release, nullptr};
    ASSERT_EQ(ghost_register_class(&table), 0) << ghost_error();
    EXPECT_EQ(ghost_register_class(&table), -1);
    EXPECT_EQ(errno, EEXIST);
    static ghost_resource_class low = table;
    low.id = 3;
    low.name = "low";
    EXPECT_EQ(ghost_register_class(&low), -1);
    EXPECT_EQ(errno, EINVAL);
    static ghost_resource_class holes = table;
    holes.id = 2001;
    holes.write = nullptr;
    EXPECT_EQ(ghost_register_class(&holes), -1);
    ghost::v1::Ghost g;
    EXPECT_TRUE(g.plug("broken:x"));
    EXPECT_EQ(plug_resource_object(2000, g.get()), 0);
}

}  // namespace
