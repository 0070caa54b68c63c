// SPDX-License-Identifier: BSD-3-Clause
// mpirun's standard input since a snapshot is there to be given again, or known not to be: files,
// pipes, a full disk, what was cut off. Reading as ORTE does it: tests/net/recover_test *Input*.
#include "pmix-plugin/runtime/orte41/kept_input.hpp"

#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <gtest/gtest.h>
#include <optional>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pmix-plugin/runtime/orte41/output.h"

namespace {

ghost_input_heard* hear = nullptr;
void* listener = nullptr;

}  // namespace

// What ORTE reads comes from here.
int ghost_input_overhear(ghost_input_heard* heard, void* context) noexcept {
    hear = heard;
    listener = context;
    return 0;
}
int ghost_input_is_overheard() noexcept {
    return hear != nullptr ? 1 : 0;
}

namespace ghost::plugin::orte41 {
namespace {

// No file of this process becomes larger.
class SizeLimit {
  public:
    explicit SizeLimit(rlim_t bytes) {
        getrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{bytes, before_.rlim_max};
        EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    }
    ~SizeLimit() {
        setrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, SIG_DFL);
    }

  private:
    rlimit before_{};
};

class KeptInputTest : public testing::Test {
  protected:
    void SetUp() override {
        hear = nullptr;
        std::string pattern = testing::TempDir() + "kept-input-XXXXXX";
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    void begin(const StartOfInput& start = {}) {
        kept_.emplace(start);
        kept_->begin([this] { return folder_; });
    }
    void comes(const std::string& text) { hear(listener, text.data(), text.size()); }

    std::string folder_;
    std::optional<KeptInput> kept_;
};

TEST_F(KeptInputTest, OfAPipeIsKeptWithoutAName) {
    begin();
    EXPECT_TRUE(kept_->has_since(0));
    comes("one two ");
    comes("three");
    comes("");
    EXPECT_EQ(kept_->place(), 13U);
    EXPECT_TRUE(kept_->has_since(4));
    EXPECT_FALSE(kept_->has_since(14));
    EXPECT_EQ(kept_->read(4, 100), "two three");
    EXPECT_EQ(kept_->read(4, 3), "two");
    EXPECT_EQ(kept_->read(13, 100), "");
    EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(KeptInputTest, WhatNoSnapshotNeedsIsCutOff) {
    begin();
    for (int i = 0; i < 64; ++i) comes(std::string(16384, static_cast<char>('a' + i % 26)));
    kept_->forget_before(1'000'000);
    EXPECT_FALSE(kept_->has_since(999'999));
    EXPECT_TRUE(kept_->has_since(1'000'000));
    const std::string rest = kept_->read(1'000'000, 1 << 20);
    EXPECT_EQ(rest.size(), 64 * 16384 - 1'000'000U);
    EXPECT_EQ(rest.back(), 'a' + 63 % 26);
}

TEST_F(KeptInputTest, FullDiskLosesWhatIsBeforeTheNextSnapshot) {
    begin();
    comes("first");
    {
        const SizeLimit full(8);
        comes("second");
        EXPECT_FALSE(kept_->has_since(0));
        EXPECT_FALSE(kept_->has_since(5));
        EXPECT_TRUE(kept_->has_since(11));
    }
    comes("third");
    EXPECT_FALSE(kept_->has_since(5));
    EXPECT_TRUE(kept_->has_since(11));
    EXPECT_EQ(kept_->read(11, 100), "third");
}

// Standard input of this process is a file, read from its third byte on.
TEST_F(KeptInputTest, OfAFileIsReadAgain) {
    const std::string path = folder_ + "/file";
    const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    const Fd before(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
    ASSERT_EQ(::write(file.get(), "xxone two", 9), 9);
    ASSERT_EQ(dup2(file.get(), STDIN_FILENO), STDIN_FILENO);
    begin({path, 2});
    comes("one ");
    EXPECT_TRUE(kept_->has_since(0));
    EXPECT_EQ(kept_->read(0, 100), "one ");
    EXPECT_EQ(kept_->read(2, 1), "e");
    comes("two");
    EXPECT_EQ(kept_->read(4, 100), "two");
    ASSERT_EQ(ftruncate(file.get(), 5), 0);
    EXPECT_FALSE(kept_->has_since(0));
    dup2(before.get(), STDIN_FILENO);
}

TEST_F(KeptInputTest, OfAllRanksIsNotHeard) {
    kept_.emplace(StartOfInput{});
    EXPECT_FALSE(kept_->has_since(0));
}

}  // namespace
}  // namespace ghost::plugin::orte41
