// SPDX-License-Identifier: BSD-3-Clause
// What a guard does when the parent of a tree is killed or stopped, and that it does nothing when
// all is well.
#include "base/file.hpp"
#include "ghost-core/supervisor/guard.hpp"

#include <array>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <string>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "ghost-core/supervisor/work_folder.hpp"

namespace {

using ghost::Fd;
using ghost::core::Guard;
using ghost::core::WorkFolder;

constexpr int64_t limit_us = 20'000'000;

char state_of(pid_t pid) {
    const auto text = ghost::read_file("/proc/" + std::to_string(pid) + "/stat");
    const auto at = text ? text->rfind(')') : std::string::npos;
    return at == std::string::npos ? 'X' : (*text)[at + 2];
}

template <typename Condition>
bool comes(Condition condition) {
    for (const int64_t limit = ghost::monotonic_us() + limit_us; ghost::monotonic_us() < limit;) {
        if (condition()) return true;
        poll(nullptr, 0, 1);
    }
    return condition();
}

// A tree of one process, which is frozen, and its parent, which has a guard; this test is where
// both go when the parent's parent is no more.
class GuardTest : public testing::Test {
  protected:
    void SetUp() override {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        tree_ = fork();
        if (tree_ == 0) {
            setpgid(0, 0);
            raise(SIGSTOP);
            for (;;) pause();
        }
        ASSERT_TRUE(comes([this] { return state_of(tree_) == 'T'; }));
        std::string name = std::filesystem::temp_directory_path() / "guard-test-XXXXXX";
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override {
        for (const pid_t pid : {tree_, parent_, above_})
            if (pid > 0) kill(pid, SIGKILL);
        while (waitpid(-1, nullptr, 0) > 0) continue;  // the guard too
        std::filesystem::remove_all(folder_);
    }

    // `with_above`: the parent has a parent that is not this test.
    void start(Guard::Config config, bool with_above = false) {
        int ends[2];
        ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
        const pid_t child = fork();
        if (child == 0) {
            const pid_t parent = with_above ? fork() : 0;
            if (parent == 0) be_parent(ends[1], config);
            for (;;) pause();
        }
        (with_above ? above_ : parent_) = child;
        pid_t pid = 0;
        ASSERT_EQ(recv(ends[0], &pid, sizeof pid, 0), static_cast<ssize_t>(sizeof pid));
        parent_ = pid;
        line_.reset(ends[0]);
        close(ends[1]);
    }
    [[noreturn]] void be_parent(int line, const Guard::Config& config) const {
        setpgid(0, 0);
        auto guard = Guard::start(config);
        const pid_t self = guard ? getpid() : 0;
        (void)send(line, &self, sizeof self, 0);
        char word = 0;
        (void)recv(line, &word, 1, 0);  // all is well
        if (guard) guard->stop();
        _exit(0);
    }
    Guard::Config config(Guard::Duty duty) const {
        return {.duty = duty, .root = tree_, .folder = folder_};
    }
    bool folder_goes() const {
        return comes([this] { return !std::filesystem::exists(folder_); });
    }
    bool tree_ends() const {
        return comes([this] { return state_of(tree_) == 'Z'; });
    }

    pid_t tree_ = 0, parent_ = 0, above_ = 0;
    std::string folder_;
    Fd line_;
};

TEST_F(GuardTest, ParentKilledTreeIsEnded) {
    start(config(Guard::Duty::kill));
    kill(parent_, SIGKILL);
    EXPECT_TRUE(tree_ends());
    EXPECT_TRUE(folder_goes());
}

// As criu and what it makes: only the first of them works in the folder.
TEST_F(GuardTest, ParentKilledWorkersAreEndedWithAllBelowThem) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    if (fork() == 0) {
        if (chdir(folder_.c_str()) != 0) _exit(1);
        for (int below = 0; below < 3; below++) {
            const pid_t self = getpid();
            if (write(ends[1], &self, sizeof self) != sizeof self) _exit(1);
            if (below == 2 || fork() != 0) break;
            if (chdir("/") != 0) _exit(1);
        }
        for (;;) pause();
    }
    std::array<pid_t, 3> workers{};
    for (auto& worker : workers) ASSERT_EQ(read(ends[0], &worker, sizeof worker), 4);
    for (const int end : ends) close(end);
    start(config(Guard::Duty::kill));
    kill(parent_, SIGKILL);
    EXPECT_TRUE(folder_goes());
    for (const pid_t worker : workers) {
        const auto state = state_of(worker);
        EXPECT_TRUE(state == 'Z' || state == 'X') << worker << " is in state " << state;
        if (state != 'Z' && state != 'X') kill(worker, SIGKILL);
    }
}

TEST_F(GuardTest, ParentKilledTreeIsResumed) {
    start(config(Guard::Duty::resume));
    kill(parent_, SIGKILL);
    EXPECT_TRUE(comes([this] { return state_of(tree_) == 'S'; })) << state_of(tree_);
    EXPECT_TRUE(folder_goes());
}

TEST_F(GuardTest, AdoptableTreeLivesUntilNobodyCanAdopt) {
    start(config(Guard::Duty::leave), true);
    kill(parent_, SIGKILL);
    EXPECT_TRUE(folder_goes());  // it has looked
    EXPECT_EQ(state_of(tree_), 'T');
    kill(above_, SIGKILL);
    EXPECT_TRUE(tree_ends());
}

TEST_F(GuardTest, StoppedGuardDoesNothing) {
    start(config(Guard::Duty::kill));
    ASSERT_EQ(send(line_.get(), "q", 1, 0), 1);
    int status = 0;
    ASSERT_EQ(waitpid(parent_, &status, 0), parent_);  // which has reaped the guard
    EXPECT_EQ(status, 0);
    parent_ = 0;
    EXPECT_EQ(state_of(tree_), 'T');
    EXPECT_TRUE(std::filesystem::exists(folder_));
}

TEST(WorkFolders, FoldersAreRemovedByOwnerOrNextProcess) {
    const pid_t ended = fork();
    if (ended == 0) _exit(0);
    waitpid(ended, nullptr, 0);
    struct stat space {};
    ASSERT_EQ(stat("/proc/self/ns/pid", &space), 0);
    const auto made_in = [&](uint64_t name_space) {
        std::string path =
            fmt::format("/dev/shm/ghost-{}-test.{}.{}-XXXXXX", geteuid(), name_space, ended);
        EXPECT_NE(mkdtemp(path.data()), nullptr);
        return path;
    };
    const std::string left = made_in(space.st_ino);
    // of another container that shares the folder: the number says nothing here
    const std::string elsewhere = made_in(space.st_ino + 1);
    std::string path;
    {
        WorkFolder folder;
        ASSERT_TRUE(folder.make("test"));
        path = folder.path();
        EXPECT_TRUE(std::filesystem::exists(path));
        EXPECT_FALSE(std::filesystem::exists(left));
        EXPECT_TRUE(std::filesystem::remove(elsewhere));
        WorkFolder moved(std::move(folder));
        EXPECT_TRUE(std::filesystem::exists(path));
    }
    EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
