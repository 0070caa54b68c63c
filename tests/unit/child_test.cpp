// SPDX-License-Identifier: BSD-3-Clause
// A child has what was asked for and nothing else, its end is sure, and why it could not be started
// is said.
#include "base/child.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fork.hpp"
#include "base/pidfd.hpp"

namespace ghost {
namespace {

constexpr int64_t long_us = 30'000'000;

std::string text_of(const Fd& file) {
    std::string out(4096, 0);
    out.resize(static_cast<size_t>(std::max<ssize_t>(pread(file.get(), out.data(), 4096, 0), 0)));
    return out;
}

// What a script, run as `request` says, writes to standard output.
std::string output_of(const std::string& script, ChildRequest request = {}) {
    const Fd out(memfd_create("output", MFD_CLOEXEC));
    request.argv = {"sh", "-c", script};
    request.stdio[1] = out.get();
    auto child = Child::start(request);
    if (!child) return child.error().message();
    if (!child->wait(monotonic_us() + long_us)) return "does not end";
    return child->succeeded() ? text_of(out) : describe_status(child->status());
}

// Prints that line of its own status.
std::string status_line(const std::string& name) {
    return "while read -r key value; do [ \"$key\" != " + name + ": ] || echo \"$value\"; done" +
           " </proc/self/status";
}

TEST(Child, HasTheDescriptorsAskedForAndNoOthers) {
    const Fd one(memfd_create("one", MFD_CLOEXEC)), two(memfd_create("two", 0));
    const Fd stray(open("/dev/null", O_RDONLY));  // not close-on-exec
    const std::string list = "for f in /proc/self/fd/*; do echo \"${f##*/}=$(readlink $f)\"; done";
    ChildRequest request;
    request.descriptors = {two.get(), one.get()};
    const auto seen = output_of(list, request);
    EXPECT_NE(seen.find("0=/dev/null"), std::string::npos) << seen;
    EXPECT_NE(seen.find("2=/dev/null"), std::string::npos) << seen;
    EXPECT_NE(seen.find("3=/memfd:two"), std::string::npos) << seen;
    EXPECT_NE(seen.find("4=/memfd:one"), std::string::npos) << seen;
    EXPECT_EQ(output_of("[ -e /proc/$$/fd/" + std::to_string(stray.get()) + " ] || echo closed"),
              "closed\n");
    request.closes_others = false;
    EXPECT_EQ(
        output_of("[ -e /proc/$$/fd/" + std::to_string(stray.get()) + " ] && echo open", request),
        "open\n");
}

// Each becomes the other's number: no copy may overwrite one that is still needed.
TEST(Child, DescriptorsMaySwapTheirNumbers) {
    const Fd three(memfd_create("a", MFD_CLOEXEC)), four(memfd_create("b", MFD_CLOEXEC));
    ChildRequest request;
    for (const int fd : {four.get(), three.get()}) request.descriptors.push_back(fd);
    EXPECT_EQ(output_of("readlink /proc/$$/fd/3 /proc/$$/fd/4", request),
              "/memfd:b (deleted)\n/memfd:a (deleted)\n");
}

TEST(Child, KeepsStandardDescriptorsThatItInherits) {
    const Fd out(memfd_create("output", MFD_CLOEXEC));
    const Fd before(fcntl(1, F_DUPFD_CLOEXEC, 10));
    ASSERT_EQ(dup2(out.get(), 1), 1);
    auto child =
        Child::start({.argv = {"echo", "here"}, .stdio = {null_device, inherited, inherited}});
    dup2(before.get(), 1);
    ASSERT_TRUE(child.ok()) << child.error().message();
    ASSERT_TRUE(child->wait(Child::no_limit));
    EXPECT_EQ(text_of(out), "here\n");
}

TEST(Child, EnvironmentReplacesWhatHasTheName) {
    setenv("GHOST_CHILD_TEST", "ours", 1);
    setenv("GHOST_CHILD_TEST_LONGER", "stays", 1);
    ChildRequest request;
    request.environment = {"GHOST_CHILD_TEST=its"};
    EXPECT_EQ(output_of("env | grep ^GHOST_CHILD_TEST | sort", request),
              "GHOST_CHILD_TEST=its\nGHOST_CHILD_TEST_LONGER=stays\n");
    request.own_environment = false;
    EXPECT_EQ(output_of("echo $GHOST_CHILD_TEST $GHOST_CHILD_TEST_LONGER.", request), "its .\n");
}

TEST(Child, WorksInItsFolderUnderTheNameGiven) {
    ChildRequest request;
    request.folder = "/proc";
    EXPECT_EQ(output_of("pwd", request), "/proc\n");
    const Fd out(memfd_create("output", MFD_CLOEXEC));
    auto child = Child::start({.argv = {"another", "-c", "echo $0"},
                               .program = "/bin/sh",
                               .stdio = {null_device, out.get(), inherited}});
    ASSERT_TRUE(child.ok());
    ASSERT_TRUE(child->wait(Child::no_limit));
    EXPECT_EQ(text_of(out), "another\n");
}

TEST(Child, PlaceAmongTheProcesses) {
    // proc(5), stat: the fifth and sixth fields
    const std::string group = "set -- $(cat /proc/$$/stat); echo $5",
                      session = "set -- $(cat /proc/$$/stat); echo $6";
    const auto word = [](const std::string& of, ChildRequest::Place place) {
        ChildRequest request;
        request.place = place;
        return output_of("[ $(" + of + ") = $$ ] && echo leads || echo follows", request);
    };
    EXPECT_EQ(word(group, ChildRequest::Place::own_group), "leads\n");
    EXPECT_EQ(word(session, ChildRequest::Place::own_group), "follows\n");
    EXPECT_EQ(word(session, ChildRequest::Place::own_session), "leads\n");
    EXPECT_EQ(word(group, ChildRequest::Place::here), "follows\n");
}

// SIGUSR1 blocked, SIGUSR2 ignored, a handler for SIGTERM: bits 9, 11 and 14.
TEST(Child, SignalsAreFreshUnblockedOrKept) {
    sigset_t one, before;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, &before);
    std::signal(SIGUSR2, SIG_IGN);
    std::signal(SIGTERM, [](int) {});
    const auto seen = [](ChildRequest::Signals signals) {
        ChildRequest request;
        request.signals = signals;
        const auto blocked = output_of(status_line("SigBlk"), request);
        const auto ignored = output_of(status_line("SigIgn"), request);
        return std::pair{(std::strtoull(blocked.c_str(), nullptr, 16) >> (SIGUSR1 - 1) & 1) != 0,
                         (std::strtoull(ignored.c_str(), nullptr, 16) >> (SIGUSR2 - 1) & 1) != 0};
    };
    EXPECT_EQ(seen(ChildRequest::Signals::fresh), std::pair(false, false));
    EXPECT_EQ(seen(ChildRequest::Signals::unblocked), std::pair(false, true));
    EXPECT_EQ(seen(ChildRequest::Signals::kept), std::pair(true, true));
    struct sigaction ours {};
    sigaction(SIGTERM, nullptr, &ours);
    EXPECT_NE(ours.sa_handler, SIG_DFL) << "the child has changed its parent's handlers";
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, &before, &now);
    EXPECT_EQ(sigismember(&now, SIGUSR1), 1);
    EXPECT_EQ(sigismember(&now, SIGINT), 0);
    std::signal(SIGUSR2, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
}

// Of the thread that starts it; who may not give them up keeps them, and runs all the same.
TEST(Child, HasNoSupplementaryGroupsIfItIsToGiveThemUp) {
    std::thread([] {
        const std::array<gid_t, 2> some = {7, 4242};
        const bool may = syscall(SYS_setgroups, some.size(), some.data()) == 0;  // only this thread
        const std::string groups = "echo $(" + status_line("Groups") + ")";
        const auto here = output_of(groups);
        if (may) {
            EXPECT_EQ(here, "7 4242\n");
        }
        ChildRequest request;
        request.no_groups = true;
        EXPECT_EQ(output_of(groups, request), may ? "\n" : here);
        EXPECT_EQ(output_of(groups), here) << "the child has changed its parent's groups";
    }).join();
}

TEST(Child, WhyItCannotBeStartedIsSaid) {
    const auto why_not = [](const ChildRequest& request) {
        auto child = Child::start(request);
        return child ? Error() : child.error();
    };
    const Error none = why_not({.argv = {"no-such-program"}});
    EXPECT_EQ(none.code, Code::unsupported);
    EXPECT_EQ(none.message(), "cannot start no-such-program: No such file or directory");
    EXPECT_EQ(why_not({.argv = {"/proc/version"}}).sys, EACCES);
    EXPECT_EQ(why_not({.argv = {"true"}, .folder = "/proc/version"}).message(),
              "cannot enter folder /proc/version: Not a directory");
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "what was not started is reaped";
    EXPECT_EQ(errno, ECHILD);
}

TEST(Child, EndsWithItsFamilyWhenItsOwnerDoes) {
    const Fd out(memfd_create("output", MFD_CLOEXEC));
    Fd grandchild;
    {
        auto child = Child::start({.argv = {"sh", "-c", "sleep 1000 & echo $!; wait"},
                                   .stdio = {null_device, out.get(), inherited}});
        ASSERT_TRUE(child.ok());
        EXPECT_FALSE(child->wait(monotonic_us()));
        while (text_of(out).empty()) std::this_thread::yield();
        grandchild = open_pidfd(std::atoi(text_of(out).c_str()));
        ASSERT_TRUE(grandchild.valid());
    }
    EXPECT_TRUE(await_pidfd(grandchild.get(), long_us / 1000));
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

TEST(Child, StatusIsThatOfItsEnd) {
    EXPECT_EQ(output_of("exit 3"), "exit status 3");
    EXPECT_EQ(output_of("kill -9 $$"), "signal 9 (Killed)");
}

// The thread that starts a child is what the signal watches.
TEST(Child, DeathSignalFollowsTheEndOfItsStarter) {
    const Fd out(memfd_create("output", MFD_CLOEXEC));
    Fd child;
    std::thread([&] {
        auto started = Child::start({.argv = {"sleep", "1000"}, .death_signal = SIGKILL});
        ASSERT_TRUE(started.ok());
        child = open_pidfd(started->pid());
        started->release();
    }).join();
    EXPECT_TRUE(await_pidfd(child.get(), long_us / 1000));
    int status = 0;
    ASSERT_GT(waitpid(-1, &status, 0), 0);
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

TEST(Child, OrphanIsNobodysWhoHasToWait) {
    // So that we can here: it becomes ours by the end of its parent.
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    const auto started = Child::start_orphan(
        {.argv = {"sh", "-c", "exit 5"}, .place = ChildRequest::Place::own_session});
    ASSERT_TRUE(started.ok()) << started.error().message();
    int status = 0;
    ASSERT_GT(waitpid(-1, &status, 0), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    EXPECT_EQ(WEXITSTATUS(status), 5);
    const auto failed = Child::start_orphan({.argv = {"no-such-program"}});
    ASSERT_FALSE(failed.ok());
    EXPECT_EQ(failed.error().sys, ENOENT);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

TEST(Child, IsTheFirstOfItsPidNameSpace) {
    if (geteuid() != 0) GTEST_SKIP() << "needs the right to make name spaces";
    ChildRequest request;
    request.namespaces = CLONE_NEWPID;
    request.death_signal = SIGKILL;
    EXPECT_EQ(output_of("echo $$", request), "1\n");
}

TEST(Fork, NumbersAndNameSpacesAreTheChilds) {
    if (geteuid() != 0) GTEST_SKIP() << "needs the right to make name spaces";
    const pid_t outer = fork_process({.namespaces = CLONE_NEWPID});
    if (outer == 0) {
        constexpr pid_t wanted = 1234;
        const pid_t inner = fork_process({.numbers = &wanted, .number_count = 1});
        if (inner == 0) _exit(getpid() == wanted && die_with(1, SIGKILL) ? 0 : 1);
        int status = 1;
        waitpid(inner, &status, 0);
        _exit(getpid() == 1 && inner == wanted ? WEXITSTATUS(status) : 1);
    }
    ASSERT_GT(outer, 0);
    int status = 1;
    ASSERT_EQ(waitpid(outer, &status, 0), outer);
    EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ghost
