// SPDX-License-Identifier: BSD-3-Clause
// What is read of /proc.
#include "base/proc.hpp"

#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.hpp"

namespace ghost {
namespace {

// Two pages of a new file, mapped; the file goes when the test does.
class MappedFile {
  public:
    MappedFile(std::string path, int protection, int flags) : path_(std::move(path)) {
        const Fd file(open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        if (!file || ftruncate(file.get(), bytes) != 0 || fstat(file.get(), &info) != 0) return;
        at = mmap(nullptr, bytes, protection, flags, file.get(), 0);
    }
    ~MappedFile() {
        munmap(at, bytes);
        unlink(path_.c_str());
    }
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    void remove() const { unlink(path_.c_str()); }

    static constexpr size_t bytes = 8192;
    void* at = MAP_FAILED;
    struct stat info {};

  private:
    std::string path_;
};

std::vector<FileMapping> mappings_of(const MappedFile& file) {
    auto all = file_mappings_of(getpid());
    std::erase_if(all, [&](const FileMapping& one) { return one.inode != file.info.st_ino; });
    return all;
}

TEST(FileMappings, AreReadWithTheirFiles) {
    const auto path = fmt::format("{}proc-{}", testing::TempDir(), getpid());
    const MappedFile file(path, PROT_READ | PROT_WRITE, MAP_SHARED);
    const auto found = mappings_of(file);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].name, path);
    EXPECT_EQ(found[0].device, file.info.st_dev);
    const auto begin = reinterpret_cast<uintptr_t>(file.at);
    EXPECT_EQ(found[0].link, fmt::format("/proc/{}/map_files/{:x}-{:x}", getpid(), begin,
                                         begin + MappedFile::bytes));
    EXPECT_FALSE(found[0].is_private);
    EXPECT_TRUE(found[0].is_writable);
    EXPECT_FALSE(found[0].is_removed());
    file.remove();
    const auto removed = mappings_of(file);
    ASSERT_EQ(removed.size(), 1u);
    EXPECT_EQ(removed[0].name, path + " (deleted)");
    EXPECT_TRUE(removed[0].is_removed());
}

TEST(FileMappings, KeepSpacesAndNewLinesOfNames) {
    const auto path = fmt::format("{}proc\n {}  ", testing::TempDir(), getpid());
    const MappedFile file(path, PROT_READ, MAP_PRIVATE);
    const auto found = mappings_of(file);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].name, path);
    EXPECT_TRUE(found[0].is_private);
    EXPECT_FALSE(found[0].is_writable);
}

TEST(FileMappings, AreOfFilesOnly) {
    void* const memory = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const auto all = file_mappings_of(getpid());
    EXPECT_FALSE(all.empty());
    for (const auto& one : all) EXPECT_EQ(one.name.substr(0, 1), "/") << one.name;
    munmap(memory, 4096);
    EXPECT_TRUE(file_mappings_of(0).empty());
}

}  // namespace
}  // namespace ghost
