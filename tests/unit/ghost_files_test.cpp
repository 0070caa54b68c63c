// Files a tree has open for writing, and cutting them back; bytes that go out at a pace.
#include <gtest/gtest.h>

#include <atomic>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "ghost-core/process/written_files.hpp"
#include "ghost-core/resource/paced.hpp"

namespace ghost::core {
namespace {

namespace fs = std::filesystem;

class FilesTest : public ::testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/ghost-files.XXXXXX";
        folder_ = mkdtemp(name);
    }
    void TearDown() override { fs::remove_all(folder_); }

    std::string path(const std::string& name) const { return folder_ + "/" + name; }
    std::string make(const std::string& name, const std::string& text) const {
        std::ofstream(path(name)) << text;
        return path(name);
    }
    static std::string text(const std::string& path) {
        std::ifstream in(path);
        return {std::istreambuf_iterator<char>(in), {}};
    }

    std::string folder_;
};

TEST_F(FilesTest, LongerOnesAreCut) {
    const auto file = make("a", "0123456789");
    EXPECT_TRUE(cut_back(file, 10).ok());
    EXPECT_EQ(text(file), "0123456789");
    EXPECT_TRUE(cut_back(file, 4).ok());
    EXPECT_EQ(text(file), "0123");
    EXPECT_TRUE(cut_back(file, 0).ok());
    EXPECT_EQ(text(file), "");
}

TEST_F(FilesTest, CopyIsKeptOnce) {
    const auto file = make("a", "0123456789");
    ASSERT_EQ(chmod(file.c_str(), 0640), 0);
    EXPECT_TRUE(cut_back(file, 10, path("copy")).ok());
    EXPECT_FALSE(fs::exists(path("copy"))) << "nothing was cut";
    EXPECT_TRUE(cut_back(file, 4, path("copy")).ok());
    EXPECT_EQ(text(file), "0123");
    EXPECT_EQ(text(path("copy")), "0123456789");
    struct stat info {};
    ASSERT_EQ(stat(path("copy").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0640U);
    // Of another restart from the same snapshot: the first copy is the longest.
    std::ofstream(file, std::ios::app) << "xyz";
    EXPECT_TRUE(cut_back(file, 4, path("copy")).ok());
    EXPECT_EQ(text(path("copy")), "0123456789");
    EXPECT_EQ(text(file), "0123");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 2);
}

TEST_F(FilesTest, CopyThatCannotBeKeptCutsNothing) {
    const auto file = make("a", "0123456789");
    const auto status = cut_back(file, 4, path("missing/copy"));
    ASSERT_FALSE(status.ok());
    EXPECT_NE(status.error().message().find("missing/copy"), std::string::npos);
    EXPECT_EQ(text(file), "0123456789");
}

TEST_F(FilesTest, SeveralAtOnce) {
    const std::string all(1 << 20, 'x');
    const auto file = make("a", all);
    std::vector<std::thread> ranks;
    std::atomic<int> failures = 0;
    for (int i = 0; i < 8; ++i)
        ranks.emplace_back([&] {
            if (!cut_back(file, 1000, path("copy")).ok()) ++failures;
        });
    for (auto& rank : ranks) rank.join();
    EXPECT_EQ(failures, 0);
    EXPECT_EQ(text(file), all.substr(0, 1000));
    EXPECT_EQ(text(path("copy")), all);
}

TEST_F(FilesTest, WhatCannotBeRight) {
    auto status = cut_back(path("missing"), 4);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::not_found);
    EXPECT_NE(status.error().message().find(path("missing")), std::string::npos);
    status = cut_back(make("short", "012"), 4);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::refused);
    EXPECT_NE(status.error().message().find("3 bytes, 1 less"), std::string::npos);
    EXPECT_EQ(text(path("short")), "012");
    ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
    status = cut_back(path("fifo"), 0);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::refused);
    EXPECT_FALSE(cut_back(folder_, 0).ok());
}

TEST_F(FilesTest, FilesOpenForWritingAreFound) {
    const auto read = make("read", "12"), both = make("both", "1234");
    const auto gone = make("gone", "1"), written = path("name with\nnew line");
    const Fd one(open(read.c_str(), O_RDONLY | O_CLOEXEC));
    const Fd two(open(both.c_str(), O_RDWR | O_CLOEXEC));
    const Fd again(open(both.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    const Fd three(open(written.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    const Fd four(open(gone.c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_TRUE(one.valid() && two.valid() && again.valid() && three.valid() && four.valid());
    ASSERT_EQ(unlink(gone.c_str()), 0);
    ASSERT_EQ(write(three.get(), "123456", 6), 6);
    auto found = written_files(getpid());
    ASSERT_TRUE(found.ok());
    std::erase_if(*found, [&](const auto& file) { return !file.path.starts_with(folder_); });
    ASSERT_EQ(found->size(), 2U);
    EXPECT_EQ((*found)[0].path, both);
    EXPECT_EQ((*found)[0].size, 4U);
    EXPECT_EQ((*found)[1].path, written);
    EXPECT_EQ((*found)[1].size, 6U);
    struct stat info {};
    ASSERT_EQ(stat(written.c_str(), &info), 0);
    EXPECT_EQ((*found)[1].inode, info.st_ino);
    EXPECT_EQ((*found)[1].device, info.st_dev);
}

// Takes everything.
class Sink : public Resource {
  public:
    explicit Sink(uint64_t& bytes) : bytes_(bytes) {}
    ResourceClass class_id() const override { return ResourceClass::file; }
    Status init() override { return {}; }
    Status write(const void*, size_t size) override { return bytes_ += size, Status(); }
    Result<size_t> read(void*, size_t) override { return size_t{0}; }
    Status finalize() override { return {}; }

  private:
    uint64_t& bytes_;
};

TEST(PacedResource, KeepsThePace) {
    uint64_t bytes = 0, told = 0;
    int calls = 0;
    PacedResource out(std::make_unique<Sink>(bytes), 20 << 20, [&](uint64_t now) {
        EXPECT_GT(now, told);
        told = now;
        ++calls;
    });
    const std::string data(5 << 20, 'x');
    const int64_t begin = monotonic_us();
    ASSERT_TRUE(out.write(data.data(), data.size()).ok());
    ASSERT_TRUE(out.finalize().ok());
    // The last piece need not be waited for.
    EXPECT_GE(monotonic_us() - begin, 195'000);
    EXPECT_EQ(bytes, data.size());
    EXPECT_EQ(told, data.size());
    EXPECT_EQ(calls, 5);
}

TEST(PacedResource, IsBrokenOff) {
    uint64_t bytes = 0;
    PacedResource out(std::make_unique<Sink>(bytes), 1 << 10);
    const std::string data(5 << 20, 'x');
    std::thread other([&] {
        usleep(20'000);
        out.interrupt();
    });
    const int64_t begin = monotonic_us();
    EXPECT_FALSE(out.write(data.data(), data.size()).ok());
    other.join();
    EXPECT_LT(monotonic_us() - begin, 10'000'000);
    EXPECT_FALSE(out.write("x", 1).ok());
    EXPECT_FALSE(out.finalize().ok());
}

}  // namespace
}  // namespace ghost::core
