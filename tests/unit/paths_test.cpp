// SPDX-License-Identifier: BSD-3-Clause
// Programs are found as exec(3) finds them; a pidfd means one process.
#include "base/paths.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pidfd.hpp"

namespace ghost {
namespace {

namespace fs = std::filesystem;

class Paths : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = testing::TempDir() + "paths-XXXXXX";
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder = pattern;
        fs::create_directories(folder + "/first");
        fs::create_directories(folder + "/second");
    }
    void TearDown() override { fs::remove_all(folder); }
    void put(const std::string& name, mode_t mode) const {
        std::ofstream(folder + "/" + name) << "#!/bin/sh\n";
        ASSERT_EQ(chmod((folder + "/" + name).c_str(), mode), 0);
    }
    std::string both() const { return folder + "/first:" + folder + "/second"; }

    std::string folder;
};

TEST_F(Paths, FirstExecutableFileOfPathIsFound) {
    put("first/plain", 0644);
    put("second/plain", 0755);
    put("first/twice", 0755);
    put("second/twice", 0755);
    fs::create_directories(folder + "/first/folder");
    EXPECT_EQ(find_in_path("plain", both()), folder + "/second/plain");
    EXPECT_EQ(find_in_path("twice", both()), folder + "/first/twice");
    EXPECT_EQ(find_in_path("folder", both()), "") << "a folder can be entered, not executed";
    EXPECT_EQ(find_in_path("nothing", both()), "");
}

TEST_F(Paths, NameWithFolderIsNotSearchedFor) {
    put("first/program", 0755);
    EXPECT_EQ(find_in_path(folder + "/first/program", both()), folder + "/first/program");
    EXPECT_EQ(find_in_path("./program", both()), "");
}

TEST_F(Paths, EmptyEntryOfPathIsTheWorkingFolder) {
    put("first/program", 0755);
    const auto before = fs::current_path();
    fs::current_path(folder + "/first");
    EXPECT_EQ(find_in_path("program", "/nowhere:"), "./program");
    fs::current_path(before);
}

TEST_F(Paths, OwnProgramIsThisOne) {
    EXPECT_EQ(fs::path(own_program()).filename(), "base_test");
}

TEST(Pidfd, PidfdReportsEndOfItsProcessOnly) {
    const pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    const Fd fd = open_pidfd(child);
    ASSERT_TRUE(fd.valid());
    EXPECT_FALSE(await_pidfd(fd.get(), 0));
    EXPECT_TRUE(signal_pidfd(fd.get(), SIGKILL));
    EXPECT_TRUE(await_pidfd(fd.get(), -1));
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    EXPECT_FALSE(signal_pidfd(fd.get(), SIGKILL));
    EXPECT_EQ(errno, ESRCH);
    EXPECT_FALSE(open_pidfd(child).valid());
}

}  // namespace
}  // namespace ghost
