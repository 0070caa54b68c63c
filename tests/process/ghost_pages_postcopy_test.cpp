// SPDX-License-Identifier: BSD-3-Clause
// Processes that run while their pages follow, and change their memory map meanwhile.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <map>
#include <random>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pidfd.hpp"
#include "ghost-core/memory/post_copy.hpp"

namespace ghost::core {
namespace {

constexpr size_t page = 4096;
constexpr size_t count = 3000;
constexpr uint64_t zero_page = 0;

bool has_content(size_t number) {
    return number % 7 != 3;
}

// Page `number` of the source; never all zeros.
void fill_page(char* to, uint64_t number) {
    auto* words = reinterpret_cast<uint64_t*>(to);
    for (size_t i = 0; i < page / sizeof *words; i++) words[i] = number * 1000003 + i + 1;
}

bool holds(const char* at, uint64_t number) {
    std::array<char, page> expected{};
    if (number != zero_page) fill_page(expected.data(), number);
    return std::memcmp(at, expected.data(), page) == 0;
}

// Slow at times, and fails after `most` bytes.
class Source : public PageProvider {
  public:
    Source(uint64_t base, uint64_t most) : base_(base), most_(most) {}
    PageRuns pages(int /*inner_pid*/) override {
        PageRuns out;
        for (size_t i = 0; i < count; i++)
            if (has_content(i)) append(out, base_ + i * page, base_ + (i + 1) * page);
        return out;
    }
    Status read(int inner_pid, const PageRun& run, char* to) override {
        EXPECT_EQ(inner_pid, 7);
        if ((given_ += run.bytes) > most_) return make_error(Code::peer_lost, "source");
        if (run.start / page % 5 == 0) usleep(300);
        for (uint64_t at = 0; at < run.bytes; at += page) {
            const size_t number = (run.start + at - base_) / page;
            EXPECT_TRUE(has_content(number));
            fill_page(to + at, number + 1);
        }
        return {};
    }

  private:
    const uint64_t base_, most_;
    std::atomic<uint64_t> given_ = 0;
};

// The process whose memory it is: does things to it and knows what has to be there.
class Mutator {
  public:
    Mutator(char* base, uint64_t seed) : random_(seed) {
        for (size_t i = 0; i < count; i++)
            expected_[base + i * page] = has_content(i) ? i + 1 : zero_page;
    }

    int run(int steps) {
        for (int i = 0; i < steps; i++)
            if (const unsigned choice = random_() % 100; !step(choice))
                return choice < 70 ? 1 : 3;  // memory of its own, or of a child
        for (const auto& [at, number] : expected_)
            if (!holds(at, number)) return 2;
        return 0;
    }

  private:
    bool step(unsigned choice) {
        auto at = expected_.begin();
        std::advance(at, static_cast<long>(random_() % expected_.size()));
        char* const place = at->first;
        const size_t most = 1 + random_() % 20;
        size_t pages = 1;
        while (pages < most && expected_.count(place + pages * page)) pages++;
        if (choice < 70) return holds(place, at->second);
        if (choice < 80) {
            fill_page(place, 1000000 + choice);
            at->second = 1000000 + choice;
        } else if (choice < 88) {
            madvise(place, pages * page, MADV_DONTNEED);
            for (size_t i = 0; i < pages; i++) expected_[place + i * page] = zero_page;
        } else if (choice < 92) {
            munmap(place, pages * page);
            for (size_t i = 0; i < pages; i++) expected_.erase(place + i * page);
        } else if (choice < 97) {
            void* moved = mremap(place, page, page, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
            if (moved == MAP_FAILED) return true;  // not allowed here
            expected_[static_cast<char*>(moved)] = at->second;
            expected_[place] = zero_page;
        } else if (choice < 98) {
            return child_is_whole();
        }
        return true;
    }

    bool child_is_whole() {
        const pid_t child = fork();
        if (child == 0) {
            for (const auto& [at, number] : expected_)
                if (!holds(at, number)) _exit(1);
            _exit(0);
        }
        int status = 1;
        waitpid(child, &status, 0);
        return status == 0;
    }

    std::mt19937 random_;
    std::map<char*, uint64_t> expected_;
};

struct Shared {
    int ready = 0, go = 0, userfault = -1;
    uint64_t base = 0;
};

[[noreturn]] void be_process(volatile Shared* shared, uint64_t seed, int steps) {
    char* base = static_cast<char*>(
        mmap(nullptr, count * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    const int userfault = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
                   UFFD_FEATURE_EVENT_UNMAP;
    uffdio_register place{};
    place.range = {reinterpret_cast<uint64_t>(base), count * page};
    place.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (ioctl(userfault, UFFDIO_API, &api) != 0 || ioctl(userfault, UFFDIO_REGISTER, &place) != 0)
        _exit(77);
    shared->base = reinterpret_cast<uint64_t>(base);
    shared->userfault = userfault;
    shared->ready = 1;
    while (shared->go == 0) usleep(100);
    close(userfault);
    _exit(Mutator(base, seed).run(steps));
}

class PostCopyTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "needs root";
        shared_ = static_cast<Shared*>(
            mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    }
    void TearDown() override {
        if (pid_ > 0) {
            kill(pid_, SIGKILL);
            waitpid(pid_, nullptr, 0);
        }
    }

    Fd start(uint64_t seed, int steps) {
        *shared_ = {};
        volatile Shared* shared = shared_;
        pid_ = fork();
        if (pid_ == 0) be_process(shared_, seed, steps);
        while (shared->ready == 0 && waitpid(pid_, nullptr, WNOHANG) == 0) usleep(100);
        const Fd process = open_pidfd(pid_);
        return Fd(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), shared_->userfault, 0)));
    }
    int end() {
        int status = 1;
        waitpid(pid_, &status, 0);
        pid_ = 0;
        return status;
    }

    Shared* shared_ = nullptr;
    pid_t pid_ = 0;
};

TEST_F(PostCopyTest, PagesAreExactUnderChurn) {
    for (uint64_t seed = 1; seed <= 6; seed++) {
        SCOPED_TRACE(seed);
        auto userfault = start(seed, 1500);
        ASSERT_TRUE(userfault.valid());
        Source source(shared_->base, UINT64_MAX);
        PostCopy copy(source);
        copy.add(7, std::move(userfault));
        shared_->go = 1;
        // With the background from the start, or once the process has had to wait for a page.
        while (seed % 2 != 0 && copy.stats().faults == 0) usleep(1000);
        copy.all_there();
        ASSERT_TRUE(copy.wait().ok());
        EXPECT_EQ(end(), 0);
    }
}

TEST_F(PostCopyTest, SourceLostBlocksProcessWithoutWrongPages) {
    auto userfault = start(3, 1500);
    ASSERT_TRUE(userfault.valid());
    Source source(shared_->base, 3 << 20);
    PostCopy copy(source);
    copy.add(7, std::move(userfault));
    copy.all_there();
    EXPECT_EQ(copy.wait().error().code, Code::peer_lost);
    shared_->go = 1;
    usleep(100000);
    EXPECT_EQ(waitpid(pid_, nullptr, WNOHANG), 0);  // neither ended well nor wrong
    kill(pid_, SIGKILL);
    end();
}

TEST(MissingPageRuns, MissingRangesAreSplitAndShifted) {
    MissingPages missing({{10 * page, 10 * page}, {30 * page, 5 * page}});
    missing.remove(12 * page, 2 * page);
    EXPECT_EQ(missing.bytes(), 13 * page);
    EXPECT_EQ(missing.find(12 * page, 2 * page).bytes, 0U);
    auto piece = missing.find(11 * page, 10 * page);
    EXPECT_EQ(piece.start, 11 * page);
    EXPECT_EQ(piece.bytes, page);
    missing.move(14 * page, 31 * page, 3 * page);
    piece = missing.find(32 * page, page);
    EXPECT_EQ(piece.original, 15 * page);
    EXPECT_EQ(missing.find(14 * page, 3 * page).bytes, 0U);
    EXPECT_EQ(missing.find(30 * page, page).original, 30 * page);
    EXPECT_EQ(missing.find(34 * page, page).original, 34 * page);
    EXPECT_EQ(missing.next(100 * page, page).start, 10 * page);
}

}  // namespace
}  // namespace ghost::core
