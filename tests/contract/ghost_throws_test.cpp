// SPDX-License-Identifier: BSD-3-Clause
// No exception leaves a function of libghost: memory runs out at every allocation of each, and a
// user's class throws.
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <unistd.h>

#include "ghost-core/include/ghost.h"
#include "tests/contract/out_of_memory.hpp"

namespace {

using throwing::until_it_succeeds;

class GhostThrows : public ::testing::Test {
  protected:
    GhostThrows() {
        char name[] = "/tmp/ghost-throws.XXXXXX";
        path_ = mkdtemp(name);
    }
    ~GhostThrows() override {
        ghost_free(g_);
        std::filesystem::remove_all(path_);
    }
    std::string path_;
    ghost_object* g_ = ghost_create();
};

TEST_F(GhostThrows, ObjectsWithoutMemory) {
    EXPECT_GT(until_it_succeeds("ghost_create",
                                [] {
                                    ghost_object* g = ghost_create();
                                    ghost_free(g);
                                    return g == nullptr;
                                }),
              0);
    EXPECT_GT(until_it_succeeds("ghost_buffer_create",
                                [] {
                                    ghost_buffer* b = ghost_buffer_create(1 << 20);
                                    ghost_buffer_free(b);
                                    return b == nullptr;
                                }),
              0);
    const std::string path = path_ + "/a-name-that-does-not-fit-into-a-short-string";
    EXPECT_GT(until_it_succeeds("ghost_file_open",
                                [&] {
                                    ghost_file* f = ghost_file_open(path.c_str());
                                    return f == nullptr || ghost_file_close(f) != 0;
                                }),
              0);
    EXPECT_GT(until_it_succeeds("ghost_set_parameters",
                                [&] { return ghost_set_parameters(g_, path.c_str()) != 0; }),
              0);
    EXPECT_GT(until_it_succeeds("ghost_plug_specification",
                                [&] { return ghost_plug_specification(g_, path.c_str()) != 0; }),
              0);
    until_it_succeeds("ghost_plug", [&] { return ghost_plug(g_, GHOST_FILE) != 0; });
    EXPECT_GT(until_it_succeeds(
                  "ghost_associate_network",
                  [&] { return ghost_associate_network(g_, path.c_str(), path.c_str(), 1) != 0; }),
              0);
}

TEST_F(GhostThrows, BytesWithoutMemory) {
    int files = 0;
    EXPECT_GT(until_it_succeeds("ghost_file_write",
                                [&] {
                                    char path[200];
                                    snprintf(path, sizeof path, "%s/a-long-name-of-file-number-%d",
                                             path_.c_str(), files++);
                                    ghost_file* f = ghost_file_open(path);
                                    if (f == nullptr) return true;
                                    const bool wrote = ghost_file_write(f, "abc", 3) == 0;
                                    const int why = errno;
                                    const bool closed = ghost_file_close(f) == 0;
                                    if (!wrote) errno = why;
                                    return !wrote || !closed;
                                }),
              0);
    for (const auto& entry : std::filesystem::directory_iterator(path_))
        EXPECT_EQ(entry.path().filename().string().find('.'), std::string::npos)
            << entry.path() << " was on its way to a name and is left";
}

// A failure that cannot even be described is one still.
TEST_F(GhostThrows, FailuresWithoutMemory) {
    for (long n = 0; n < 20; n++) {
        throwing::left = n;
        EXPECT_EQ(ghost_plug(g_, 4711), -1);
        throwing::left = -1;
        EXPECT_STRNE(ghost_error(), "");
    }
    EXPECT_EQ(errno, EINVAL);
    for (long n = 0; n < 200; n++) {
        throwing::left = n;
        EXPECT_EQ(ghost_load_class("/no/such/shared/object/that/is/long/enough.so"), -1);
        EXPECT_EQ(ghost_connection_open("localhost", "", 1), nullptr);
        throwing::left = -1;
    }
}

int init_throws(void**, ghost_use, const char*, const ghost_resource_host*) {
    throw std::runtime_error("init of a class");
}
ssize_t read_throws(void*, void*, size_t) {
    throw 7;
}
int write_throws(void*, const void*, size_t) {
    throw 7;
}
int finalize_throws(void*) {
    throw 7;
}
void release(void*) {}

TEST_F(GhostThrows, UserClassThatThrowsIsAnError) {
    std::error_code none;
    const auto criu = std::filesystem::canonical("criu/sbin/criu", none);
    if (none || geteuid() != 0) GTEST_SKIP() << "needs root and criu";
    setenv("GHOST_CRIU", criu.c_str(), 0);
    static const ghost_resource_class table = {2100,        "throwing",   init_throws,
                                               read_throws, write_throws, finalize_throws,
                                               release,     nullptr};
    ASSERT_EQ(ghost_register_class(&table), 0) << ghost_error();
    ASSERT_EQ(ghost_plug_specification(g_, "throwing:x"), 0);
    errno = 0;
    EXPECT_EQ(ghost_import_process(g_), -1);
    EXPECT_EQ(errno, EPROTO) << ghost_error();
    EXPECT_STRNE(ghost_error(), "");
}

}  // namespace
