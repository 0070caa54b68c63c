// SPDX-License-Identifier: BSD-3-Clause
// What is believed is only what this user alone can have written: everything else is refused with
// its name, and neither read nor changed.
#include "base/own_file.hpp"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace ghost {
namespace {

namespace fs = std::filesystem;

constexpr uid_t stranger = 65534;

class OwnFile : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = testing::TempDir() + "own-file-XXXXXX";
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder = pattern;
        put("file", "contents");
    }
    void TearDown() override { fs::remove_all(folder); }

    std::string at(const std::string& name) const { return folder + "/" + name; }
    void put(const std::string& name, const std::string& text) const {
        std::ofstream(at(name)) << text;
        ASSERT_EQ(chmod(at(name).c_str(), 0600), 0);
    }
    std::string text(const std::string& name) const {
        std::ifstream in(at(name));
        return {std::istreambuf_iterator<char>(in), {}};
    }
    static bool can_give_away() { return geteuid() == 0; }
    static void give_away(const std::string& path) {
        ASSERT_EQ(lchown(path.c_str(), stranger, stranger), 0);
    }

    std::string folder;
};

void expect_refused(const Result<Fd>& opened, const std::string& named, const std::string& why) {
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().code, Code::refused);
    EXPECT_NE(opened.error().message().find(named), std::string::npos) << opened.error().message();
    EXPECT_NE(opened.error().message().find(why), std::string::npos) << opened.error().message();
}

TEST_F(OwnFile, OpensWithRequestedFlags) {
    auto read_it = open_own_file(at("file"));
    ASSERT_TRUE(read_it.ok()) << read_it.error().message();
    char buffer[16] = {};
    EXPECT_EQ(read(read_it->get(), buffer, sizeof buffer), 8);
    ASSERT_TRUE(open_own_file(at("file"), O_WRONLY | O_TRUNC).ok());
    EXPECT_EQ(text("file"), "");
    ASSERT_TRUE(open_own_file(at("new"), O_WRONLY | O_CREAT).ok());
    struct stat info {};
    ASSERT_EQ(stat(at("new").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    EXPECT_EQ(open_own_file(at("none")).error().code, Code::not_found);
    EXPECT_EQ(open_own_file(at("none/file")).error().code, Code::not_found);
}

TEST_F(OwnFile, FileOrFolderWritableByOthersIsRefused) {
    for (const mode_t mode : {0620, 0602, 0666}) {
        ASSERT_EQ(chmod(at("file").c_str(), mode), 0);
        expect_refused(open_own_file(at("file"), O_WRONLY | O_TRUNC), at("file"), "chmod go-w");
    }
    EXPECT_EQ(text("file"), "contents");
    ASSERT_EQ(chmod(at("file").c_str(), 0644), 0);
    for (const mode_t mode : {0720, 0702, 01777}) {
        ASSERT_EQ(chmod(folder.c_str(), mode), 0);
        expect_refused(open_own_folder(folder), folder, "chmod go-w");
        expect_refused(open_own_file(at("file")), folder, "chmod go-w");
    }
    ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
    EXPECT_TRUE(open_own_file(at("file")).ok());
}

TEST_F(OwnFile, SymbolicLinkToFileIsNotFollowed) {
    // root's own file with a stranger's contents: what /proc/PID/cmdline of his process is
    for (const std::string& aim : {at("file"), std::string("/proc/self/cmdline")}) {
        fs::create_symlink(aim, at("link"));
        expect_refused(open_own_file(at("link")), at("link"), "link");
        expect_refused(open_own_file(at("link"), O_RDWR | O_CREAT | O_TRUNC), at("link"), "link");
        fs::remove(at("link"));
    }
    EXPECT_EQ(text("file"), "contents");
}

TEST_F(OwnFile, NonRegularFileIsRefusedWithoutBlocking) {
    ASSERT_EQ(mkfifo(at("pipe").c_str(), 0600), 0);
    fs::create_directory(at("folder"));
    for (const char* name : {"pipe", "folder"})
        expect_refused(open_own_file(at(name)), at(name), "no regular file");
    expect_refused(open_own_folder(at("file")), at("file"), "no folder");
}

TEST_F(OwnFile, FileOfAnotherUserIsRefused) {
    if (!can_give_away()) GTEST_SKIP() << "needs root to give a file away";
    give_away(at("file"));
    expect_refused(open_own_file(at("file"), O_WRONLY | O_TRUNC), at("file"), "user 65534");
    EXPECT_EQ(text("file"), "contents");
    put("other", "");
    give_away(folder);
    expect_refused(open_own_file(at("other")), folder, "user 65534");
    expect_refused(open_own_file(at("new"), O_RDWR | O_CREAT), folder, "user 65534");
    EXPECT_FALSE(fs::exists(at("new")));
    expect_refused(make_own_folder(folder), folder, "user 65534");
}

// From here on folders cannot be looked through.
bool forbid_listing() {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getdents64, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{std::size(program), program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// What goes wrong in a process of a user who is not root; nothing: "".
std::string of_user(uid_t user, const std::function<std::string()>& what) {
    int ends[2];
    if (pipe(ends) != 0) return "pipe";
    const pid_t child = fork();
    if (child == 0) {
        std::string said = setresuid(user, user, user) == 0 ? what() : "setresuid";
        _exit(write(ends[1], said.data(), said.size()) < 0 ? 1 : 0);
    }
    close(ends[1]);
    char text[1024];
    std::string out;
    for (ssize_t n = 0; (n = read(ends[0], text, sizeof text)) > 0;)
        out.append(text, static_cast<size_t>(n));
    close(ends[0]);
    waitpid(child, nullptr, 0);
    return out;
}

// It is asked for in each stop of a rank.
TEST_F(OwnFile, FolderOfAUserIsLookedForOnceAndMadeAnewIfItIsGone) {
    if (!can_give_away()) GTEST_SKIP() << "needs root to be another user";
    constexpr uid_t somebody = 54321;
    EXPECT_EQ(of_user(somebody,
                      []() -> std::string {
                          const auto first = private_folder();
                          if (!first) return first.error().message();
                          fs::remove_all(*first);
                          const auto second = private_folder();
                          if (!second || *second == *first || !fs::exists(*second))
                              return "none after it was removed";
                          const bool forbidden = forbid_listing();
                          const auto third = private_folder();
                          fs::remove(*second);
                          if (!forbidden) return "cannot forbid";
                          if (!third) return third.error().message();
                          if (*third != *second) fs::remove(*third);
                          return *third == *second ? "" : "looked for again";
                      }),
              "");
}

TEST_F(OwnFile, FolderIsCreatedPrivateOrKept) {
    ASSERT_TRUE(make_own_folder(at("made")).ok());
    struct stat info {};
    ASSERT_EQ(stat(at("made").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
    EXPECT_TRUE(make_own_folder(at("made")).ok());
    expect_refused(make_own_folder(at("file")), at("file"), "no folder");
    EXPECT_EQ(make_own_folder(at("none/made")).error().sys, ENOENT);
}

TEST_F(OwnFile, OwnLinkToFolderIsFollowed) {
    fs::create_directory(at("real"));
    fs::create_directory_symlink(at("real"), at("link"));
    EXPECT_TRUE(open_own_folder(at("link")).ok());
    EXPECT_TRUE(open_own_folder(at("link/")).ok());
    if (!can_give_away()) GTEST_SKIP() << "needs root to give a link away";
    give_away(at("link"));
    for (const char* name : {"link", "link/"})
        expect_refused(open_own_folder(at(name)), at("link"), "user 65534");
}

TEST_F(OwnFile, FoldersWithRandomNamesAreFoundByTheirOwner) {
    const std::string prefix = at("mine");
    fs::create_directory(prefix + ".notaken");
    if (can_give_away())
        give_away(prefix + ".notaken");
    else
        fs::remove(prefix + ".notaken");
    fs::create_symlink(folder, prefix + ".link");
    put("mine.file", "");
    const auto made = shared_own_folder(prefix);
    ASSERT_TRUE(made.ok()) << made.error().message();
    EXPECT_TRUE(made->starts_with(prefix + "."));
    struct stat info {};
    ASSERT_EQ(stat(made->c_str(), &info), 0);
    EXPECT_EQ(info.st_mode, S_IFDIR | 0700u);
    EXPECT_EQ(*shared_own_folder(prefix), *made);
    // a younger one, though its name comes first
    usleep(20'000);
    fs::create_directory(prefix + ".0");
    EXPECT_EQ(*shared_own_folder(prefix), *made);
    EXPECT_EQ(own_folders(prefix), (std::vector<std::string>{*made, prefix + ".0"}));
    EXPECT_NE(fresh_name(prefix), fresh_name(prefix));
    EXPECT_TRUE(fresh_name(prefix).starts_with(prefix + "."));
}

// However many begin at once.
TEST_F(OwnFile, AllGetTheSameFolder) {
    const std::string prefix = at("together");
    std::vector<std::string> got(8);
    std::vector<std::thread> all;
    for (auto& one : got)
        all.emplace_back(
            [&] { one = shared_own_folder(prefix).ok() ? *shared_own_folder(prefix) : ""; });
    for (auto& one : all) one.join();
    for (const auto& one : got) EXPECT_EQ(one, got[0]);
    EXPECT_NE(got[0], "");
    EXPECT_EQ(own_folders(prefix).size(), 1u);
}

TEST_F(OwnFile, TrustsFilesOfThisUserAndRootWhereverTheyAre) {
    ASSERT_EQ(chmod(folder.c_str(), 01777), 0);
    auto mine = open_trusted_file(at("file"));
    ASSERT_TRUE(mine.ok()) << mine.error().message();
    char buffer[16] = {};
    EXPECT_EQ(read(mine->get(), buffer, sizeof buffer), 8);
    fs::create_symlink("file", at("link"));
    EXPECT_TRUE(open_trusted_file(at("link")).ok());
    EXPECT_TRUE(open_trusted_file("/etc/passwd").ok());
    EXPECT_EQ(open_trusted_file(at("none")).error().code, Code::not_found);
    expect_refused(open_trusted_file("/proc/self/cmdline"), "/proc/self/cmdline", "/proc");
    ASSERT_EQ(chmod(at("file").c_str(), 0620), 0);
    expect_refused(open_trusted_file(at("file")), at("file"), "chmod go-w");
    if (!can_give_away()) return;
    ASSERT_EQ(chmod(at("file").c_str(), 0600), 0);
    give_away(at("link"));
    expect_refused(open_trusted_file(at("link")), at("link"), "link");
    give_away(at("file"));
    expect_refused(open_trusted_file(at("file")), at("file"), "user 65534");
}

}  // namespace
}  // namespace ghost
