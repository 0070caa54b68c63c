// SPDX-License-Identifier: BSD-3-Clause
// Files a tree has open for writing, and cutting them back; bytes that go out at a pace.
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "ghost-core/criu/written_files.hpp"
#include "ghost-core/format/files.hpp"
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

TEST_F(FilesTest, LongerFileIsTruncated) {
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

TEST_F(FilesTest, FailedCopyLeavesFileUntruncated) {
    const auto file = make("a", "0123456789");
    const auto status = cut_back(file, 4, path("missing/copy"));
    ASSERT_FALSE(status.ok());
    EXPECT_NE(status.error().message().find("missing/copy"), std::string::npos);
    EXPECT_EQ(text(file), "0123456789");
}

TEST_F(FilesTest, SeveralFilesAreCheckedTogether) {
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

TEST_F(FilesTest, CutBackOfImpossibleFileIsRefused) {
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

TEST_F(FilesTest, SmallFilesAreStoredInGhost) {
    const auto empty = make("empty", ""), small = make("small", "12345"), edge = make("edge", "");
    const auto big = make("big", ""), away = make("away", "1"), grown = path("grown");
    ASSERT_EQ(chmod(small.c_str(), 0640), 0);
    fs::resize_file(edge, 8192);
    fs::resize_file(big, 8193);
    std::vector<Fd> open_files;
    for (const auto& one : {empty, small, edge, big, away})
        open_files.emplace_back(open(one.c_str(), O_WRONLY | O_CLOEXEC));
    for (const auto& one : open_files) ASSERT_TRUE(one.valid());
    // Has a name, but not the one the link says: it is found by that one.
    ASSERT_EQ(link(away.c_str(), grown.c_str()), 0);
    ASSERT_EQ(unlink(away.c_str()), 0);
    // Without the output of this program, which may be a file too.
    int ready[2];
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    const pid_t child = fork();
    if (child == 0) {
        for (const int end : {0, 1, 2, ready[1]}) close(end);
        for (;;) pause();
    }
    close(ready[1]);
    char none = 0;
    ASSERT_EQ(read(ready[0], &none, 1), 0);
    close(ready[0]);
    const auto look = [&](uint64_t all) {
        auto found = written_files(child, {8192, all});
        EXPECT_TRUE(found.ok());
        std::map<std::string, WrittenFile> out;
        for (auto& file : *found) out[file.path] = file;
        return out;
    };
    auto found = look(1 << 20);
    ASSERT_TRUE(found[empty].contents && found[small].contents && found[edge].contents);
    EXPECT_EQ(found[empty].contents->bytes, "");
    EXPECT_EQ(found[small].contents->bytes, "12345");
    EXPECT_EQ(found[small].contents->mode, 0640U);
    EXPECT_EQ(found[small].contents->owner, getuid());
    EXPECT_EQ(found[edge].contents->bytes, std::string(8192, '\0'));
    EXPECT_FALSE(found[big].contents);
    EXPECT_EQ(found[big].size, 8193U);
    for (const auto& [name, file] : found) EXPECT_FALSE(name.starts_with(away));
    ASSERT_TRUE(found[grown].contents);
    EXPECT_EQ(found[grown].contents->bytes, "1");
    // The smallest first, each a page at least.
    found = look(12288);
    EXPECT_TRUE(found[empty].contents && found[grown].contents && found[small].contents);
    EXPECT_FALSE(found[edge].contents);
    found = look(4096);
    EXPECT_TRUE(found[empty].contents);
    EXPECT_FALSE(found[small].contents);
    EXPECT_FALSE(look(0)[empty].contents);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
}

// Without a descriptor, and with others.
TEST_F(FilesTest, WhatIsMappedSharedIsWrittenToo) {
    constexpr size_t bytes = 4096;
    const auto shared = make("shared", ""), own = make("own", ""), seen = make("seen", "");
    std::vector<void*> mapped;
    const auto map = [&](const std::string& file, int protection, int how) {
        fs::resize_file(file, bytes);
        const Fd fd(open(file.c_str(), O_RDWR | O_CLOEXEC));
        mapped.push_back(mmap(nullptr, bytes, protection, how, fd.get(), 0));
        ASSERT_NE(mapped.back(), MAP_FAILED);
    };
    map(shared, PROT_READ | PROT_WRITE, MAP_SHARED);
    map(own, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    map(seen, PROT_READ, MAP_SHARED);
    std::memcpy(mapped[0], "now", 3);
    auto found = written_files(getpid(), {bytes, 1 << 20});
    for (void* const one : mapped) munmap(one, bytes);
    ASSERT_TRUE(found.ok());
    std::erase_if(*found, [&](const auto& file) { return !file.path.starts_with(folder_); });
    ASSERT_EQ(found->size(), 1U);
    EXPECT_EQ((*found)[0].path, shared);
    ASSERT_TRUE((*found)[0].contents);
    EXPECT_EQ((*found)[0].contents->bytes.substr(0, 4), std::string("now", 4));
}

// Cut back is only what has grown.
TEST_F(FilesTest, LargeFilesAreKnownAgain) {
    for (const size_t bytes : {size_t{10000}, size_t{6} << 20}) {
        const auto file = make("large", "");
        std::ofstream(file) << std::string(bytes, 'a');
        const Fd fd(open(file.c_str(), O_RDWR | O_CLOEXEC));
        auto found = written_files(getpid(), {4096, 1 << 20, 8});
        ASSERT_TRUE(found.ok());
        std::erase_if(*found, [&](const auto& one) { return one.path != file; });
        ASSERT_EQ(found->size(), 1U);
        EXPECT_FALSE((*found)[0].contents);
        const FileBegin begin{(*found)[0].size, (*found)[0].hash};
        EXPECT_EQ(begin.size, bytes);
        EXPECT_EQ(begin.hash.size(), 16U);
        std::ofstream(file, std::ios::app) << "more";
        EXPECT_TRUE(may_cut_back(file, bytes, begin).ok());
        ASSERT_EQ(pwrite(fd.get(), "b", 1, static_cast<off_t>(bytes) - 1), 1);
        const auto status = may_cut_back(file, bytes, begin);
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.error().code, Code::refused);
        EXPECT_NE(status.error().message().find("overwritten since"), std::string::npos);
        EXPECT_TRUE(may_cut_back(file, bytes).ok());
    }
}

// What is written between the pieces that are looked at.
TEST_F(FilesTest, LargeFilesAreKnownByTheirLastWrite) {
    constexpr size_t bytes = size_t{6} << 20;
    const auto file = make("large", std::string(bytes, 'a'));
    const Fd fd(open(file.c_str(), O_RDWR | O_CLOEXEC));
    const timespec old[] = {{0, UTIME_OMIT}, {1'000'000'000, 5}};
    ASSERT_EQ(futimens(fd.get(), old), 0);
    auto found = written_files(getpid(), {4096, 1 << 20, 8});
    ASSERT_TRUE(found.ok());
    std::erase_if(*found, [&](const auto& one) { return one.path != file; });
    ASSERT_EQ(found->size(), 1U);
    const FileBegin begin{bytes, (*found)[0].hash, (*found)[0].modified_ns};
    EXPECT_EQ(begin.modified_ns, 1'000'000'000'000'000'005);
    // What has grown is cut back, and known once more.
    for (int restart = 0; restart < 2; restart++) {
        std::ofstream(file, std::ios::app) << "more";
        EXPECT_TRUE(may_cut_back(file, bytes, begin).ok());
        EXPECT_TRUE(cut_back(file, bytes, {}, begin.modified_ns).ok());
        EXPECT_TRUE(may_cut_back(file, bytes, begin).ok());
    }
    ASSERT_EQ(pwrite(fd.get(), "b", 1, 50'000), 1);
    EXPECT_EQ(contents_hash(fd.get(), bytes), begin.hash);
    const auto status = may_cut_back(file, bytes, begin);
    ASSERT_FALSE(status.ok());
    EXPECT_NE(status.error().message().find("overwritten since"), std::string::npos);
}

TEST_F(FilesTest, LooksAreOrderedByTime) {
    const auto file = make("a", "1");
    const Fd fd(open(file.c_str(), O_RDWR | O_CLOEXEC));
    const auto look = [&] {
        auto found = written_files(getpid(), {4096, 1 << 20});
        EXPECT_TRUE(found.ok());
        for (auto& one : *found)
            if (one.path == file) return one;
        return WrittenFile();
    };
    const auto first = look();
    ASSERT_EQ(pwrite(fd.get(), "2", 1, 0), 1);
    const auto second = look();
    EXPECT_LT(std::pair(first.changed_ns, first.taken_us),
              std::pair(second.changed_ns, second.taken_us));
    EXPECT_NE(first.contents->hash(), second.contents->hash());
    auto other = *second.contents;
    EXPECT_EQ(other.hash(), second.contents->hash());
    other.mode ^= 0100;
    EXPECT_NE(other.hash(), second.contents->hash());
}

// What put_back() has to cope with, and comes to the same of.
class PutBack : public FilesTest {
  protected:
    FileContents contents(const std::string& bytes) const {
        return {bytes, 0640, getuid(), getgid()};
    }
    void expect_right(const std::string& file, const std::string& bytes) const {
        EXPECT_EQ(text(file), bytes);
        struct stat info {};
        EXPECT_EQ(stat(file.c_str(), &info), 0);
        EXPECT_EQ(info.st_mode & 07777, 0640U);
    }
};

TEST_F(PutBack, RestoresChangedRemovedAndReplacedFiles) {
    const auto file = path("a");
    for (const char* now : {"-", "", "0123", "0123456789", "0123456789 and more", "x123456789"}) {
        fs::remove(file);
        if (*now != '-') make("a", now);
        EXPECT_TRUE(may_put_back(file, 0640).ok());
        auto done = put_back(file, contents("0123456789"));
        EXPECT_TRUE(done.ok()) << done.error().message();
        expect_right(file, "0123456789");
    }
    fs::remove(file);
    EXPECT_TRUE(put_back(file, contents("")).ok());
    expect_right(file, "");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(PutBack, UnchangedFileIsNotTouched) {
    const auto file = make("a", "0123456789");
    ASSERT_EQ(chmod(file.c_str(), 0640), 0);
    fs::last_write_time(file, fs::file_time_type());
    EXPECT_TRUE(put_back(file, contents("0123456789"), path("copy")).ok());
    EXPECT_EQ(fs::last_write_time(file), fs::file_time_type());
    EXPECT_FALSE(fs::exists(path("copy")));
}

// By a rank of the same job that is there already, for one: who finds a file right waits for
// nobody.
TEST_F(PutBack, UnchangedFileMayBeLocked) {
    const auto file = make("a", "0123456789");
    ASSERT_EQ(chmod(file.c_str(), 0640), 0);
    const Fd theirs(open(file.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(flock(theirs.get(), LOCK_EX), 0);
    EXPECT_TRUE(put_back(file, contents("0123456789"), path("copy")).ok());
    EXPECT_TRUE(cut_back(file, 10, path("copy")).ok());
}

TEST_F(PutBack, ChangedFileIsBackedUp) {
    for (const std::string now : {"01234567", "x123456789", "0123456789 and more"}) {
        const auto file = make("a", now);
        EXPECT_TRUE(put_back(file, contents("0123456789"), path("copy")).ok());
        EXPECT_EQ(text(path("copy")), now);
        std::ofstream(file, std::ios::app) << "again";
        EXPECT_TRUE(put_back(file, contents("0123456789"), path("copy")).ok());
        EXPECT_EQ(text(path("copy")), now);
        expect_right(file, "0123456789");
        fs::remove(path("copy"));
    }
    auto status = put_back(make("a", "other"), contents("0123456789"), path("missing/copy"));
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(text(path("a")), "other");
}

TEST_F(PutBack, ImpossibleRestoreIsRefused) {
    const auto gone = path("missing/a");
    for (auto status : {may_put_back(gone), put_back(gone, contents("1"))}) {
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.error().code, Code::not_found);
        EXPECT_NE(status.error().message().find(gone), std::string::npos);
    }
    ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
    ASSERT_EQ(symlink("/nowhere/at/all", path("link").c_str()), 0);
    for (const auto& other : {path("fifo"), path("link"), folder_})
        for (auto status : {may_put_back(other), put_back(other, contents("1"))}) {
            ASSERT_FALSE(status.ok());
            EXPECT_EQ(status.error().code, Code::refused);
        }
}

// Who may write to the folder has put a link there, to a file that only the restart may change.
TEST_F(PutBack, LinkLeadsToNoOtherFile) {
    make("precious", "a long text");
    ASSERT_EQ(symlink(path("precious").c_str(), path("a").c_str()), 0);
    for (auto status : {may_put_back(path("a")), put_back(path("a"), contents("1")),
                        may_cut_back(path("a"), 1), cut_back(path("a"), 1, "")}) {
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.error().code, Code::refused) << status.error().message();
    }
    EXPECT_EQ(text(path("precious")), "a long text");
}

// He has made the file under its name on the way, and would have it open when it is another's.
TEST_F(PutBack, StrangersFileOnTheWayIsNotUsed) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root to be two users";
    make("a.ghost-part", "");
    ASSERT_EQ(chown(path("a.ghost-part").c_str(), 65534, 65534), 0);
    const auto status = put_back(path("a"), contents("1"));
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::refused);
    EXPECT_FALSE(fs::exists(path("a")));
    // nor one that others may write to
    fs::remove(path("a.ghost-part"));
    make("a.ghost-part", "");
    ASSERT_EQ(chmod(path("a.ghost-part").c_str(), 0666), 0);
    EXPECT_FALSE(put_back(path("a"), contents("1")).ok());
    fs::remove(path("a.ghost-part"));
    EXPECT_TRUE(put_back(path("a"), contents("1")).ok());
}

TEST_F(PutBack, SeveralFilesAtOnce) {
    const std::string bytes(60000, 'x');
    const auto file = path("a");
    for (int turn = 0; turn < 20; ++turn) {
        fs::remove(file);
        if (turn % 2 == 1) make("a", "changed");
        std::vector<std::thread> ranks;
        std::mutex mutex;
        std::set<ino_t> seen;
        for (int i = 0; i < 8; ++i)
            ranks.emplace_back([&] {
                const auto done = put_back(file, contents(bytes), path("copy"));
                struct stat info {};
                stat(file.c_str(), &info);
                std::lock_guard lock(mutex);
                EXPECT_TRUE(done.ok()) << done.error().message();
                // Whoever is through may open it: it stays that file.
                seen.insert(info.st_ino);
            });
        for (auto& rank : ranks) rank.join();
        expect_right(file, bytes);
        EXPECT_EQ(seen.size(), 1U);
        fs::remove(path("copy"));
        EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
    }
}

TEST_F(PutBack, FileMadeDuringCheckIsNotTakenForLink) {
    const auto file = path("a");
    for (int turn = 0; turn < 2000; ++turn) {
        std::atomic<bool> begun = false;
        std::thread other([&] {
            while (!begun) continue;
            make("a", "1");
        });
        begun = true;
        Status status;
        for (int look = 0; look < 200 && status.ok(); ++look) status = may_put_back(file, 0640);
        other.join();
        ASSERT_TRUE(status.ok()) << status.error().message();
        fs::remove(file);
    }
}

TEST_F(PutBack, KilledAnywhereLeavesOldOrNew) {
    const auto file = path("a");
    const auto whole = contents(std::string(65536, 'x'));
    const std::string before = "what there was";
    for (int turn = 0; turn < 60; ++turn) {
        fs::remove(file);
        fs::remove(path("copy"));
        if (turn % 2 == 1) make("a", before);
        const pid_t other = fork();
        if (other == 0) _exit(put_back(file, whole, path("copy")).ok() ? 0 : 1);
        usleep(static_cast<useconds_t>(turn * 20));
        kill(other, SIGKILL);
        waitpid(other, nullptr, 0);
        EXPECT_TRUE(put_back(file, whole, path("copy")).ok());
        expect_right(file, whole.bytes);
        EXPECT_EQ(text(path("copy")), turn % 2 == 1 ? before : "");
    }
    fs::remove(path("copy"));
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
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

TEST(PacedResource, RateIsKept) {
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

TEST(PacedResource, PauseIsInterrupted) {
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
