// SPDX-License-Identifier: BSD-3-Clause
// The short stop of a tree for its skeleton: criu started ahead, hooks, going on, flags that
// change.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.hpp"
#include "base/proc.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/protobuf.hpp"
#include "ghost-core/criu/stopped_tree.hpp"
#include "tests/process/ghost_tree.hpp"

namespace ghost::core::test {
namespace {

class Stop : public ::testing::Test {
  protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "needs root";
        log::setup("criu_stop_test", log::level_from_environment());
        if (auto warm = warm_up(settings()); !warm.ok()) GTEST_SKIP() << warm.error().message();
        if (!knows_short_stop(settings())) GTEST_SKIP() << "criu was built without our patches";
        tree_ = Tree::start(8);
        ASSERT_GT(tree_->healthy(), 0U);
    }

    CriuSettings settings() const { return {criu_program(), folder_.path(), 20}; }
    DumpRequest request() const {
        DumpRequest out;
        out.root = tree_->root;
        out.externals = tree_->keys();
        out.criu = settings();
        out.short_stop = true;
        out.leave_running = true;
        return out;
    }
    bool all_stopped() const {
        const auto tasks = list_tree(tree_->root);
        if (!tasks) return false;
        for (const auto& task : *tasks)
            for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid))) {
                const auto status = read_status(fmt::format("/proc/{}/task/{}", task.pid, tid));
                // criu runs its own code in one thread at a time
                if (status && status->state != 'T' && status->state != 't') return false;
            }
        return true;
    }
    // The tree works, and nothing is left of the dump.
    void expect_going_on() {
        const auto before = tree_->healthy();
        EXPECT_GT(tree_->healthy(), before);
        const auto tasks = list_tree(tree_->root);
        ASSERT_TRUE(tasks.ok());
        for (const auto& task : *tasks)
            for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid)))
                EXPECT_EQ(sched_getscheduler(tid), SCHED_OTHER);
        for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
            EXPECT_EQ(entry.path().filename(), "criu.log");
        EXPECT_LE(children_of(getpid()).size(), 1U);  // the tree
    }
    uint64_t lazy_bytes(const DumpResult& result) const {
        uint64_t out = 0;
        for (const auto& task : result.pages) out += task.bytes();
        return out;
    }

    // How many mappings are told not to be inherited, by the skeleton (vma.proto, mm.proto).
    static int unforked(const SkeletonFiles& files) {
        constexpr uint32_t vmas = 14, madvice = 9;
        int out = 0;
        for (const auto& [name, content] : files) {
            if (!name.starts_with("mm-") || content.size() < 12) continue;
            ProtoReader memory(std::string_view(content).substr(12));  // two magics, a length
            while (auto one = memory.next()) {
                if (one->number != vmas) continue;
                ProtoReader mapping(one->text);
                while (auto field = mapping.next())
                    out += field->number == madvice && (field->value >> MADV_DONTFORK & 1) != 0;
            }
        }
        return out;
    }
    // The dump, while a flag changes after criu has had its first look, which nothing shows from
    // outside: it is given `look_us` for it.
    void dump_with_advice(bool flags_in_stop, SkeletonFiles& files, int& stops,
                          useconds_t look_us = 50'000) {
        auto what = request();
        what.flags_in_stop = flags_in_stop;
        what.before_release = [&]() -> Status {
            stops++;
            return {};
        };
        auto dump = TreeDump::prepare(what);
        ASSERT_TRUE(dump.ok());
        usleep(look_us);  // if it comes later, nothing is noticed, and nothing lost
        EXPECT_EQ(tree_->ask(5000, "advise\n").value_or("nothing"), "advised");
        auto result = TreeDump(std::move(*dump)).run(files);
        ASSERT_TRUE(result.ok()) << result.error().message();
        expect_going_on();
    }

    WorkFolder folder_;
    std::unique_ptr<Tree> tree_;
};

TEST(CriuCache, BuildThatTrustsAnyCacheIsRefused) {
    const WorkFolder folder;
    const std::string program = folder.path() + "/criu";
    std::ofstream(program) << "#!/bin/sh\n# /dev/shm/ghost-criu\n";
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    for (const auto& warm :
         {warm_up({program, folder.path(), 20}), warm_up_once({program, folder.path(), 20})}) {
        ASSERT_FALSE(warm.ok());
        EXPECT_EQ(warm.error().code, Code::refused);
        EXPECT_NE(warm.error().message().find(program), std::string::npos);
    }
}

TEST_F(Stop, HooksRunBetweenFreezeAndRelease) {
    std::atomic<int> order = 0;
    auto what = request();
    what.on_stopped = [&]() -> Status {
        EXPECT_EQ(order++, 0);
        return {};
    };
    what.before_release = [&]() -> Status {
        EXPECT_EQ(order++, 1);
        EXPECT_TRUE(all_stopped());
        return {};
    };
    auto dump = TreeDump::prepare(what);
    ASSERT_TRUE(dump.ok()) << dump.error().message();
    EXPECT_GT(tree_->healthy(), 0U) << "it runs while criu waits";
    SkeletonFiles files;
    auto result = TreeDump(std::move(*dump)).run(files);
    ASSERT_TRUE(result.ok()) << result.error().message();
    EXPECT_EQ(order, 2);
    EXPECT_GT(files.size(), 10U);
    ASSERT_EQ(result->pages.size(), 2U);
    EXPECT_GE(lazy_bytes(*result), uint64_t{8 << 20});
    EXPECT_LT(result->skeleton_bytes, uint64_t{1 << 20});
    expect_going_on();
}

// Who has called vfork(2) does not stop before the child has executed, which must not be stopped
// before that.
TEST_F(Stop, TreeThatStartsProgramsAllTheTimeStops) {
    const pid_t starter = fork();
    if (starter == 0) {
        for (;;) {
            const pid_t child = vfork();
            if (child == 0) {
                usleep(20'000);
                execl("/bin/true", "true", nullptr);
                _exit(1);
            }
            waitpid(child, nullptr, 0);
        }
    }
    for (int i = 0; i < 20; i++) {
        auto stopped = StoppedTree::stop(starter, 5'000'000);
        ASSERT_TRUE(stopped.ok()) << stopped.error().message();
        const auto tasks = list_tree(starter);
        ASSERT_TRUE(tasks.ok());
        for (const auto& task : *tasks) EXPECT_TRUE(task.state == 'T' || task.state == 'Z');
        for (const auto& task : *tasks) kill(task.pid, SIGCONT);
        usleep(7'000);
    }
    kill(starter, SIGKILL);
    waitpid(starter, nullptr, 0);
}

// As a job's own tools do, and batch systems.
TEST_F(Stop, TreeThatSuspendsItselfAllTheTimeStops) {
    const pid_t parent = fork();
    if (parent == 0) {
        if (fork() == 0)
            for (;; usleep(500)) {
                kill(getppid(), SIGSTOP);
                usleep(200);
                kill(getppid(), SIGCONT);
            }
        for (;;) sched_yield();
    }
    while (children_of(parent).empty()) usleep(1000);
    for (int i = 0; i < 200; i++) {
        auto stopped = StoppedTree::stop(parent, 5'000'000);
        ASSERT_TRUE(stopped.ok()) << i << stopped.error().message();
        const auto tasks = list_tree(parent);
        ASSERT_TRUE(tasks.ok());
        for (const auto& task : *tasks) EXPECT_EQ(task.state, 'T');
        for (const auto& task : *tasks) kill(task.pid, SIGCONT);
        usleep(1'000);
    }
    for (const pid_t pid : {children_of(parent).at(0), parent}) kill(pid, SIGKILL);
    waitpid(parent, nullptr, 0);
}

// A child that traces its parent, as a crash handler or a sampling profiler does.
pid_t start_traced_by_child(useconds_t traced_us, useconds_t between_us) {
    const pid_t parent = fork();
    if (parent != 0) return parent;
    if (fork() == 0)
        for (;; usleep(between_us)) {
            if (ptrace(PTRACE_SEIZE, getppid(), nullptr, nullptr) != 0) _exit(1);
            usleep(traced_us);
            // what it has stopped for, if it has, is let to it
            int status = 0;
            while (waitpid(getppid(), &status, WNOHANG) > 0 && WIFSTOPPED(status))
                ptrace(PTRACE_DETACH, getppid(), nullptr, WSTOPSIG(status));
            ptrace(PTRACE_INTERRUPT, getppid(), nullptr, nullptr);
            if (waitpid(getppid(), &status, 0) > 0)
                ptrace(PTRACE_DETACH, getppid(), nullptr,
                       status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status));
        }
    for (;;) usleep(100);
}

// The tracer is one of those that are to stop, and who is traced waits for it.
TEST_F(Stop, TreeThatTracesItselfForMomentsStops) {
    const pid_t parent = start_traced_by_child(20'000, 20'000);
    while (children_of(parent).empty()) usleep(1000);
    for (int i = 0; i < 50; i++) {
        auto stopped = StoppedTree::stop(parent, 5'000'000);
        ASSERT_TRUE(stopped.ok()) << i << " " << stopped.error().message();
        const auto tasks = list_tree(parent);
        ASSERT_TRUE(tasks.ok());
        for (const auto& task : *tasks) EXPECT_EQ(task.state, 'T');
        for (const auto& task : *tasks) kill(task.pid, SIGCONT);
        usleep(static_cast<useconds_t>(1'000 + i * 500));
    }
    for (const pid_t pid : {children_of(parent).at(0), parent}) kill(pid, SIGKILL);
    waitpid(parent, nullptr, 0);
}

TEST_F(Stop, WhoIsTracedForLongIsNamedWithItsTracer) {
    const pid_t parent = start_traced_by_child(60'000'000, 0);
    while (children_of(parent).empty() || read_status(fmt::format("/proc/{}", parent))->tracer == 0)
        usleep(1000);
    const pid_t tracer = children_of(parent).at(0);
    const auto stopped = StoppedTree::stop(parent, 300'000);
    ASSERT_FALSE(stopped.ok());
    EXPECT_NE(
        stopped.error().message().find(fmt::format("it is traced by criu_stop_test {}", tracer)),
        std::string::npos)
        << stopped.error().message();
    for (const pid_t pid : {tracer, parent}) kill(pid, SIGKILL);
    waitpid(parent, nullptr, 0);
}

TEST_F(Stop, FailedHookResumesTree) {
    for (int which = 0; which < 2; which++) {
        auto what = request();
        const auto fail = []() -> Status { return make_error(Code::io, "no room"); };
        (which == 0 ? what.on_stopped : what.before_release) = fail;
        SkeletonFiles files;
        auto dump = TreeDump::prepare(what);
        ASSERT_TRUE(dump.ok());
        auto result = TreeDump(std::move(*dump)).run(files);
        ASSERT_FALSE(result.ok());
        EXPECT_EQ(result.error().tried, "no room");
        expect_going_on();
    }
}

TEST_F(Stop, PreparedDumpDiscardedLeavesTree) {
    {
        auto dump = TreeDump::prepare(request());
        ASSERT_TRUE(dump.ok());
        EXPECT_GT(tree_->healthy(), 0U);
    }
    expect_going_on();
}

// A busy machine may take longer for the look.
TEST_F(Stop, MappingFlagsChangedDuringDumpAreSeen) {
    int stops = 0;
    for (const useconds_t look_us : {50'000, 500'000, 3'000'000}) {
        SkeletonFiles files;
        tree_ = Tree::start(8);
        ASSERT_GT(tree_->healthy(), 0U);
        stops = 0;
        dump_with_advice(false, files, stops, look_us);
        EXPECT_EQ(unforked(files), 1);
        if (stops == 2) break;
    }
    EXPECT_EQ(stops, 2);
}

TEST_F(Stop, MappingFlagsAreReadWhileFrozen) {
    SkeletonFiles before, files;
    {
        auto dump = TreeDump::prepare(request());  // the names of the flags are known after this
        ASSERT_TRUE(dump.ok() && dump->run(before).ok());
    }
    EXPECT_EQ(unforked(before), 0);
    int stops = 0;
    dump_with_advice(true, files, stops);
    // Where it cannot be done, or the number is met for the first time, the other way is taken.
    EXPECT_LE(stops, 2);
    EXPECT_EQ(unforked(files), 1);
    stops = 0;
    dump_with_advice(true, files, stops);
    const bool can = std::filesystem::exists("/run/ghost-criu/ghost-vmflags");
    EXPECT_EQ(stops, can ? 1 : 2);
    EXPECT_EQ(unforked(files), 1);
}

TEST_F(Stop, ManyDumpsInARow) {
    for (int i = 0; i < 10; i++) {
        SkeletonFiles files;
        auto dump = TreeDump::prepare(request());
        ASSERT_TRUE(dump.ok());
        auto result = TreeDump(std::move(*dump)).run(files);
        ASSERT_TRUE(result.ok()) << result.error().message();
    }
    expect_going_on();
}

// Prints where the time of a stop goes; GHOST_STOP_MB for other sizes (docs/PERFORMANCE.md).
TEST_F(Stop, Profile) {
    const char* asked = std::getenv("GHOST_STOP_MB");
    tree_ = Tree::start(asked != nullptr ? std::atoi(asked) : 32);
    ASSERT_GT(tree_->healthy(), 0U);
    std::vector<DumpTimes> all;
    for (int i = 0; i < 9; i++) {
        SkeletonFiles files;
        auto dump = TreeDump::prepare(request());
        ASSERT_TRUE(dump.ok());
        auto result = TreeDump(std::move(*dump)).run(files);
        ASSERT_TRUE(result.ok()) << result.error().message();
        all.push_back(result->times);
    }
    const auto median = [&](int64_t DumpTimes::*part) {
        std::vector<int64_t> times;
        for (const auto& one : all) times.push_back(one.*part);
        std::sort(times.begin(), times.end());
        return static_cast<double>(times[times.size() / 2]) / 1000;
    };
    std::printf(
        "stop of %s MB, ms: %.2f = stop %.2f, seize %.2f, skeleton %.2f, hooks %.2f, "
        "release %.2f, resume %.2f; before it %.2f\n",
        asked != nullptr ? asked : "32", median(&DumpTimes::frozen), median(&DumpTimes::stop),
        median(&DumpTimes::seize), median(&DumpTimes::skeleton), median(&DumpTimes::hooks),
        median(&DumpTimes::release), median(&DumpTimes::resume), median(&DumpTimes::ahead));
    expect_going_on();
}

}  // namespace
}  // namespace ghost::core::test
