// SPDX-License-Identifier: BSD-3-Clause
// libghost's objects without a process: buffers, files, nodes, classes, errors; through ghost.hpp
// where that has them.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "ghost-core/include/ghost/ghost.hpp"
#include "tests/free_port.h"

namespace {

TEST(Api, BufferReadReturnsWrittenBytes) {
    auto made = ghost::Buffer::make(1 << 20);
    ASSERT_TRUE(made) << made.failure().text;
    auto& buffer = *made;
    ASSERT_TRUE(buffer.write("abc", 3));
    ASSERT_TRUE(buffer.write("def", 3));
    EXPECT_EQ(buffer.size(), 6U);
    char text[10] = {};
    EXPECT_EQ(*buffer.read(text, 4), 4U);
    EXPECT_EQ(*buffer.read(text + 4, 4), 2U);
    EXPECT_STREQ(text, "abcdef");
    EXPECT_EQ(*buffer.read(text, 4), 0U);
    buffer.rewind();
    EXPECT_EQ(*buffer.read(text, 10), 6U);
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

TEST_F(ApiFolder, FileAppearsWhenClosed) {
    const auto path = path_ + "/a";
    ghost_file* f = ghost_file_open(path.c_str());
    ASSERT_EQ(ghost_file_write(f, "hello", 5), 0);
    EXPECT_FALSE(std::filesystem::exists(path));
    char text[6] = {};
    EXPECT_EQ(ghost_file_read(f, text, 5), -1) << "it is being written";
    EXPECT_EQ(errno, EINVAL);
    ASSERT_EQ(ghost_file_close(f), 0);
    f = ghost_file_open(path.c_str());
    EXPECT_EQ(ghost_file_read(f, text, 5), 5);
    EXPECT_STREQ(text, "hello");
    EXPECT_EQ(ghost_file_close(f), 0);
    f = ghost_file_open((path_ + "/missing").c_str());
    EXPECT_EQ(ghost_file_read(f, text, 5), -1);
    EXPECT_EQ(errno, ENOENT);
    EXPECT_NE(std::string(ghost_error()).find("missing"), std::string::npos);
    EXPECT_EQ(ghost_file_close(f), 0);
}

// What may be another user's: not taken, whatever way it is plugged, unless that is asked for.
TEST_F(ApiFolder, ImportRefusesWhatOthersMayHaveWritten) {
    const auto path = path_ + "/a";
    std::ofstream(path) << std::string(4096, 'x');
    std::filesystem::permissions(path, std::filesystem::perms(0666));
    const auto import = [](ghost::Ghost& g) {
        auto made = g.import_process();
        EXPECT_FALSE(made);
        return made.failure();
    };
    for (const auto& specification : {path, "file:" + path, "tee:" + path + ";" + path}) {
        auto g = ghost::Ghost::make();
        ASSERT_TRUE(g->plug(specification));
        const auto refused = import(*g);
        EXPECT_EQ(refused.code, EPERM) << refused.text;
        EXPECT_NE(refused.text.find("others may write to it"), std::string::npos) << refused.text;
        ASSERT_TRUE(g->trust_owner(true));
        EXPECT_NE(import(*g).text.find("not a ghost"), std::string::npos) << import(*g).text;
        ASSERT_TRUE(g->trust_owner(false));
        EXPECT_EQ(import(*g).code, EPERM);
    }
    auto file = ghost::File::open(path);
    auto g = ghost::Ghost::make();
    ASSERT_TRUE(g->plug(*file));
    EXPECT_EQ(import(*g).code, EPERM);
    char byte = 0;
    EXPECT_FALSE(file->read(&byte, 1)) << "or an import would go on behind what has been read";
    ASSERT_TRUE(g->trust_owner(true));
    const auto junk = import(*g);
    EXPECT_NE(junk.code, EPERM) << junk.text;
}

TEST(Api, OnlyWhatTheKeySignedIsImported) {
    std::string folder = (std::filesystem::temp_directory_path() / "ghost-api.XXXXXX").string();
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    const auto path = folder + "/key";
    ASSERT_EQ(ghost_make_keys(path.c_str()), 0) << ghost_error();
    EXPECT_EQ(ghost_make_keys(path.c_str()), -1);
    EXPECT_EQ(errno, EEXIST);
    const auto import = [](ghost::Ghost& g) {
        auto made = g.import_process();
        EXPECT_FALSE(made);
        return made.failure();
    };
    auto buffer = ghost::Buffer::make(1 << 20);
    const std::string junk(100, 'x');
    ASSERT_TRUE(buffer->write(junk.data(), junk.size()));
    auto g = ghost::Ghost::make();
    ASSERT_TRUE(g->plug(*buffer));
    EXPECT_NE(import(*g).code, EPERM);
    ASSERT_TRUE(g->signed_by((path + ".pub").c_str()));
    const auto refused = import(*g);
    EXPECT_EQ(refused.code, EPERM) << refused.text;
    EXPECT_NE(refused.text.find("it is not signed"), std::string::npos) << refused.text;
    ASSERT_TRUE(g->signed_by(nullptr));
    EXPECT_NE(import(*g).code, EPERM);
    EXPECT_FALSE(g->signed_by("/dev/null"));
    EXPECT_FALSE(g->sign_with((path + ".pub").c_str()));
    EXPECT_EQ(errno, EINVAL);
    ASSERT_TRUE(g->sign_with(path.c_str()));
    ASSERT_TRUE(g->plug_network("", "channel", 4711));
    EXPECT_EQ(import(*g).code, EINVAL);
    std::filesystem::remove_all(folder);
}

TEST(Api, ConnectionNeedsSameChannel) {
    ssize_t got = 0;
    char text[6] = {};
    const uint16_t port = free_port();
    ASSERT_NE(port, 0);
    std::thread other([&] {
        ghost_connection* here = ghost_connection_open(nullptr, "channel", port);
        ASSERT_NE(here, nullptr) << ghost_error();
        got = ghost_connection_read(here, text, 5);
        EXPECT_EQ(ghost_connection_write(here, "back", 4), 0);
        ghost_connection_close(here);
    });
    ghost_connection* there = nullptr;
    for (int tries = 0; there == nullptr && tries < 500; tries++) {
        there = ghost_connection_open("localhost", "channel", port);
        if (there == nullptr) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_NE(there, nullptr) << ghost_error();
    EXPECT_EQ(ghost_connection_write(there, "hello", 5), 0);
    char answer[5] = {};
    EXPECT_EQ(ghost_connection_read(there, answer, 4), 4);
    EXPECT_STREQ(answer, "back");
    ghost_connection_close(there);
    other.join();
    EXPECT_EQ(got, 5);
    EXPECT_STREQ(text, "hello");
    EXPECT_EQ(ghost_connection_open("localhost", "", port), nullptr);
    EXPECT_EQ(errno, EINVAL);
}

TEST(Api, InvalidArgumentsAreRefusedWithErrno) {
    auto made = ghost::Ghost::make();
    ASSERT_TRUE(made);
    auto& g = *made;
    EXPECT_EQ(ghost_plug(g.get(), 777), -1);
    EXPECT_EQ(errno, EINVAL);
    auto done = g.plug("lz4,level=many:/a");
    EXPECT_FALSE(done);
    EXPECT_EQ(done.failure().code, EINVAL);
    EXPECT_NE(done.failure().text.find("many"), std::string::npos) << done.failure().text;
    EXPECT_EQ(ghost_set_then(g.get(), static_cast<ghost_then>(9)), -1);
    EXPECT_EQ(ghost_associate_network(g.get(), "x", "channel", 0), -1);
    EXPECT_EQ(ghost_load_class("/no/such.so"), -1);
    EXPECT_EQ(ghost_export_process(g.get(), 1), -1);
    EXPECT_FALSE(g.import_process());
}

TEST_F(ApiFolder, CppWrappersOwnFilesAndConnections) {
    const auto path = path_ + "/a";
    {
        auto file = ghost::File::open(path);
        ASSERT_TRUE(file);
        ASSERT_TRUE(file->write("hello", 5));
        ASSERT_TRUE(file->close());
    }
    auto file = ghost::File::open(path);
    char text[6] = {};
    EXPECT_EQ(*file->read(text, 5), 5U);
    EXPECT_STREQ(text, "hello");
    auto missing = ghost::File::open(path_ + "/missing");
    auto got = missing->read(text, 5);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.failure().code, ENOENT);
    EXPECT_EQ(ghost::Connection::open("localhost", "", 1).failure().code, EINVAL);
    EXPECT_EQ(ghost::resume_process(999999999).failure().code, ENOENT);
    EXPECT_EQ(ghost::is_clone().failure().code, ENOENT);
}

// A program may know fewer or more figures than the library.
TEST(Api, StructSizeOlderOrNewerIsAccepted) {
    auto g = ghost::Ghost::make();
    struct {
        ghost_statistics known;
        uint64_t unknown;
    } newer;
    std::memset(&newer, 0xff, sizeof newer);
    newer.known.size = sizeof newer;
    ASSERT_EQ(ghost_get_statistics(g->get(), &newer.known), 0);
    EXPECT_EQ(newer.known.total_us, 0);
    EXPECT_EQ(newer.unknown, 0U);
    ghost_statistics older;
    std::memset(&older, 0xff, sizeof older);
    older.size = offsetof(ghost_statistics, page_bytes);
    ASSERT_EQ(ghost_get_statistics(g->get(), &older), 0);
    EXPECT_EQ(older.bytes, 0U);
    EXPECT_EQ(older.page_bytes, UINT64_MAX);
    older.size = 0;
    EXPECT_EQ(ghost_get_statistics(g->get(), &older), -1);
    EXPECT_EQ(errno, EINVAL);
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

TEST(Api, DuplicateClassIdIsRefused) {
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
    auto g = ghost::Ghost::make();
    EXPECT_TRUE(g->plug("broken:x"));
    EXPECT_TRUE(g->plug(2000, "x"));
}

}  // namespace
