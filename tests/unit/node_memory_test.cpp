// SPDX-License-Identifier: BSD-3-Clause
// What is taken for the memory that is left for a process, or for a copy of it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "ghost-core/engine/node_memory.hpp"

namespace {

namespace fs = std::filesystem;
constexpr uint64_t unlimited = std::numeric_limits<uint64_t>::max();

// A control group as files.
class MemoryLeft : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = "memory-left-XXXXXX";
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder_ = fs::absolute(name);
    }
    void TearDown() override { fs::remove_all(folder_); }
    // What a file of the group says, or of one below.
    void has(const fs::path& file, const std::string& text) const {
        fs::create_directories((folder_ / file).parent_path());
        std::ofstream(folder_ / file) << text;
    }
    uint64_t left(const char* group = "") const { return ghost::core::memory_left(folder_, group); }

    fs::path folder_;
};

TEST_F(MemoryLeft, LimitMinusUsage) {
    has("memory.max", "1000000\n");
    has("memory.current", "400000\n");
    EXPECT_EQ(left(), 600000U);
}

// The contents of files that were read and written are charged to the group, and so is memory that
// was offered to the system: a job that has written its results has not used up its memory.
TEST_F(MemoryLeft, ReclaimableMemoryCountsAsLeft) {
    has("memory.max", "1000000\n");
    has("memory.current", "990000\n");
    has("memory.stat", "anon 200000\nfile 700000\nactive_file 100000\ninactive_file 600000\n");
    EXPECT_EQ(left(), 610000U);
}

TEST_F(MemoryLeft, GroupOfVersion1) {
    has("memory.limit_in_bytes", "1000000\n");
    has("memory.usage_in_bytes", "990000\n");
    has("memory.stat", "inactive_file 1\ntotal_inactive_file 600000\n");
    has("job/memory.limit_in_bytes", "9223372036854771712\n");
    has("job/memory.usage_in_bytes", "5\n");
    EXPECT_EQ(left("job"), 610000U);
}

TEST_F(MemoryLeft, ZeroBeyondLimit) {
    has("memory.max", "1000000\n");
    has("memory.current", "1200000\n");
    has("memory.stat", "inactive_file 100000\n");
    EXPECT_EQ(left(), 0U);
}

TEST_F(MemoryLeft, TightestParentGroupCounts) {
    for (const char* group : {".", "job", "job/step", "job/step/task"})
        has(fs::path(group) / "memory.current", "1000");
    has("job/step/task/memory.max", "max");
    has("job/step/memory.max", "9000");
    has("job/memory.max", "5000");
    EXPECT_EQ(left("job/step/task"), 4000U);
    EXPECT_EQ(left("elsewhere"), unlimited);
    has("memory.max", "3000");
    EXPECT_EQ(left("job/step/task"), 2000U);
    EXPECT_EQ(left(), 2000U);
}

TEST_F(MemoryLeft, NoLimitIsUnlimited) {
    EXPECT_EQ(left(), unlimited);
    has("memory.current", "5\n");
    has("memory.max", "max\n");
    EXPECT_EQ(left(), unlimited);
}

TEST(MemoryAvailable, MachineHasMemory) {
    EXPECT_GT(ghost::core::memory_available(), 1U << 20);
    EXPECT_LT(ghost::core::memory_available(), unlimited);
}

}  // namespace
