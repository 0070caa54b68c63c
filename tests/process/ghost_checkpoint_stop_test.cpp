// SPDX-License-Identifier: BSD-3-Clause
// The stop of a concurrent checkpoint: on which processor, when somebody says so, called off, kept.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>

#include "base/own_file.hpp"
#include "ghost-core/criu/binding.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/stopped_tree.hpp"
#include "tests/contract/faulty_resource.hpp"
#include "ghost-core/resource/memory.hpp"
#include "ghost-core/supervisor/work_folder.hpp"
#include "tests/process/ghost_checkpoints.hpp"

namespace ghost::core::test {
namespace {

// The calling thread, and what it starts, has one processor.
class OneProcessor {
  public:
    OneProcessor() {
        sched_getaffinity(0, sizeof before_, &before_);
        cpu_set_t one;
        CPU_ZERO(&one);
        for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
            if (CPU_ISSET(i, &before_)) CPU_SET(i, &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    ~OneProcessor() { sched_setaffinity(0, sizeof before_, &before_); }

  private:
    cpu_set_t before_{};
};

// Kills a process after so long; what waits for it fails then, instead of waiting for ever.
class Watchdog {
  public:
    Watchdog(const std::atomic<pid_t>& pid, int seconds)
        : thread_([&pid, seconds](const std::stop_token& stop) {
              for (int i = 0; i < 10 * seconds && !stop.stop_requested(); i++) usleep(100000);
              if (!stop.stop_requested() && pid > 0) kill(pid, SIGKILL);
          }) {}

  private:
    std::jthread thread_;
};

// It is put before everybody else to stop at once, and must not go on computing so.
TEST_F(CheckpointTest, BusyTreeOnOneProcessorIsStopped) {
    std::atomic<pid_t> root = 0;
    const Watchdog watchdog(root, 20);
    const OneProcessor one;
    auto tree = start_churn({"spin"});
    root = tree->root;
    // Until it is at it: with one processor it may not have begun yet.
    const int64_t limit = monotonic_us() + 10'000'000;
    while (getsid(tree->root) != tree->root && monotonic_us() < limit) usleep(1000);
    ASSERT_EQ(getsid(tree->root), tree->root);
    Checkpointer checkpointer;
    for (int i = 0; i < 3; i++) {
        MemoryResource ghost;
        auto stats = checkpointer.run(request(*tree), ghost);
        ASSERT_TRUE(stats.ok()) << stats.error().message();
    }
    EXPECT_EQ(sched_getscheduler(tree->root), SCHED_OTHER);
}

// Of every thread of a tree, by number: the processors it may use.
std::map<pid_t, cpu_set_t> processors_of(pid_t root) {
    std::map<pid_t, cpu_set_t> out;
    const auto tasks = list_tree(root);
    EXPECT_TRUE(tasks.ok());
    for (const auto& task : *tasks)
        for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid)))
            EXPECT_EQ(sched_getaffinity(tid, sizeof(cpu_set_t), &out[tid]), 0);
    return out;
}

bool same_processors(const std::map<pid_t, cpu_set_t>& a, const std::map<pid_t, cpu_set_t>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
        return x.first == y.first && CPU_EQUAL(&x.second, &y.second);
    });
}

bool all_on_one(const std::map<pid_t, cpu_set_t>& all) {
    return std::all_of(all.begin(), all.end(),
                       [](const auto& one) { return CPU_COUNT(&one.second) == 1; });
}

// While it is frozen only, and what its threads were bound to is what they are bound to afterwards.
TEST_F(CheckpointTest, TreeIsBoundToOneProcessorWhileFrozen) {
    if (!knows_short_stop({criu_program(), source_folder_.path(), 20}))
        GTEST_SKIP() << "criu was built without our patches";
    auto tree = Tree::start(12);
    ASSERT_GT(tree->healthy(), 0U);
    auto before = processors_of(tree->root);
    ASSERT_GT(before.size(), 1U);
    const OneProcessor one;  // one of them is bound already
    cpu_set_t narrow;
    ASSERT_EQ(sched_getaffinity(0, sizeof narrow, &narrow), 0);
    ASSERT_EQ(sched_setaffinity(before.rbegin()->first, sizeof narrow, &narrow), 0);
    before = processors_of(tree->root);
    for (const bool stays : {false, true}) {
        auto what = request(*tree);
        what.leave_stopped = stays;
        bool bound = false;
        what.while_stopped = [&]() -> Status {
            bound = all_on_one(processors_of(tree->root));
            return {};
        };
        MemoryResource ghost;
        auto stats = checkpointer_.run(what, ghost);
        ASSERT_TRUE(stats.ok()) << stats.error().message();
        EXPECT_TRUE(bound);
        EXPECT_TRUE(same_processors(before, processors_of(tree->root)));
    }
    ASSERT_TRUE(resume_tree(tree->root).ok());
    EXPECT_GT(tree->healthy(), 0U);
}

// Whoever stops the tree and binds it is killed then.
bool bind_and_die(pid_t root) {
    const pid_t child = fork();
    if (child == 0) {
        auto stopped = StoppedTree::stop(root, 2'000'000);
        if (!stopped || !bind_tree(stopped->tasks(), stopped->placements(), getpid()).ok())
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status);
}

std::string note_of(pid_t root) {
    return fmt::format("{}/bound-{}", *private_folder(), root);
}

// What is noted of a tree that nobody lets go on any more goes with the next work of any kind.
TEST_F(CheckpointTest, NotesOfKilledTreesAreRemoved) {
    auto killed = Tree::start(2), lives = Tree::start(2);
    ASSERT_GT(killed->healthy(), 0U);
    ASSERT_GT(lives->healthy(), 0U);
    ASSERT_TRUE(bind_and_die(killed->root) && bind_and_die(lives->root));
    const auto stale = note_of(killed->root), good = note_of(lives->root);
    killed.reset();
    core::WorkFolder work;
    ASSERT_TRUE(work.make("notes").ok());
    EXPECT_NE(access(stale.c_str(), F_OK), 0) << stale;
    EXPECT_EQ(access(good.c_str(), F_OK), 0) << good;
    ASSERT_TRUE(resume_tree(lives->root).ok());
    EXPECT_GT(lives->healthy(), 0U);
}

TEST_F(CheckpointTest, ResumeByAnotherProcessRestoresAffinity) {
    auto tree = Tree::start(12);
    ASSERT_GT(tree->healthy(), 0U);
    const auto before = processors_of(tree->root);
    for (int i = 0; i < 2; i++) {  // also after somebody else's
        ASSERT_TRUE(bind_and_die(tree->root));
        EXPECT_TRUE(all_on_one(processors_of(tree->root)));
    }
    ASSERT_TRUE(resume_tree(tree->root).ok());
    EXPECT_TRUE(same_processors(before, processors_of(tree->root)));
    EXPECT_NE(access(note_of(tree->root).c_str(), F_OK), 0);
    EXPECT_GT(tree->healthy(), 0U);
}

// Of every process of a tree, by its own number: whether it is stopped.
std::map<int, bool> stopped_in(pid_t root) {
    std::map<int, bool> out;
    const auto tasks = list_tree(root);
    EXPECT_TRUE(tasks.ok());
    for (const auto& task : *tasks) out[task.inner] = task.state == 'T';
    return out;
}

void signal_all(pid_t root, int signal) {
    const auto tasks = list_tree(root);
    ASSERT_TRUE(tasks.ok());
    for (const auto& task : *tasks) kill(task.pid, signal);
}

// All of its processes, and one of them: whoever has stopped them lets them go on.
TEST_F(CheckpointTest, StoppedProcessesStayStopped) {
    for (const bool all : {true, false}) {
        SCOPED_TRACE(all);
        auto tree = Tree::start(6);
        ASSERT_GT(tree->healthy(), 0U);
        if (all)
            signal_all(tree->root, SIGSTOP);
        else
            kill(list_tree(tree->root)->back().pid, SIGSTOP);
        auto before = stopped_in(tree->root);
        for (const int64_t end = monotonic_us() + 10'000'000;
             (!before.rbegin()->second || before.begin()->second != all) && monotonic_us() < end;
             before = stopped_in(tree->root))
            usleep(1000);
        EXPECT_TRUE(before.rbegin()->second);
        EXPECT_EQ(before.begin()->second, all);
        for (const bool leave : {false, true}) {
            MemoryResource ghost;
            auto what = request(*tree);
            what.leave_stopped = leave;
            auto stats = checkpointer_.run(what, ghost);
            ASSERT_TRUE(stats.ok()) << stats.error().message();
            ASSERT_TRUE(!leave || resume_tree(tree->root).ok());
            EXPECT_EQ(stopped_in(tree->root), before);
            Tree copy;
            auto held = import(ghost, copy);
            ASSERT_TRUE(held.ok()) << held.error().message();
            ASSERT_TRUE(release_tree(*held).ok());
            EXPECT_EQ(stopped_in(copy.root), before);
            signal_all(copy.root, SIGCONT);
            EXPECT_GT(copy.healthy(), 0U);
        }
        signal_all(tree->root, SIGCONT);
        EXPECT_GT(tree->healthy(), 0U);
    }
}

// As after `ghost checkpoint --then stop`; a second time is as good as once.
TEST_F(CheckpointTest, HaltedTreeGoesOnAsItWas) {
    auto tree = Tree::start(6);
    ASSERT_GT(tree->healthy(), 0U);
    const pid_t last = list_tree(tree->root)->back().pid;
    kill(last, SIGSTOP);
    while (!stopped_in(tree->root).rbegin()->second) usleep(1000);
    const auto before = stopped_in(tree->root);
    for (int times = 1; times < 3; times++) {
        for (int i = 0; i < times; i++) {
            halt_tree(tree->root);
            while (!stopped_in(tree->root).begin()->second) usleep(1000);
        }
        ASSERT_TRUE(resume_tree(tree->root).ok());
        EXPECT_EQ(stopped_in(tree->root), before);
    }
    kill(last, SIGCONT);
    EXPECT_GT(tree->healthy(), 0U);
}

// What a killed freeze has stopped is not taken for stopped by somebody else, by the next one.
TEST_F(CheckpointTest, StopOfKilledFreezeIsNobodyElses) {
    auto tree = Tree::start(6);
    ASSERT_GT(tree->healthy(), 0U);
    const pid_t last = list_tree(tree->root)->back().pid;
    kill(last, SIGSTOP);
    while (!stopped_in(tree->root).rbegin()->second) usleep(1000);
    const auto before = stopped_in(tree->root);
    for (int i = 0; i < 2; i++) {
        const pid_t child = fork();
        if (child == 0) {
            auto stopped = StoppedTree::stop(tree->root, 2'000'000);
            kill(getpid(), stopped.ok() ? SIGKILL : SIGTERM);
        }
        int status = 0;
        waitpid(child, &status, 0);
        ASSERT_EQ(WTERMSIG(status), SIGKILL);
    }
    EXPECT_NE(stopped_in(tree->root), before);
    MemoryResource ghost;
    auto stats = checkpointer_.run(request(*tree), ghost);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    EXPECT_EQ(stopped_in(tree->root), before);
    kill(last, SIGCONT);
    EXPECT_GT(tree->healthy(), 0U);
}

// What a snapshot of a whole job needs: the order to freeze comes from outside.
TEST_F(CheckpointTest, FreezeWaitsForOrder) {
    auto tree = Tree::start(48);
    ASSERT_GT(tree->healthy(), 0U);
    auto what = request(*tree);
    what.keep_tracking = true;
    std::vector<std::string> order;
    uint64_t beats = 0;
    what.wait_to_freeze = [&]() -> Status {
        order.emplace_back("wait");
        usleep(1'200'000);  // long enough for criu to have to look again
        beats = tree->healthy();
        return {};
    };
    what.while_stopped = [&]() -> Status {
        order.emplace_back("stopped");
        return {};
    };
    what.final_metadata = [&] {
        order.emplace_back("metadata");
        return Json{{"late", 7}};
    };
    what.captured = [&](const CheckpointStats& stats) {
        order.emplace_back("captured");
        EXPECT_GT(stats.pause_us, 0);
        EXPECT_GT(tree->healthy(), beats) << "it does not run";
    };
    uint64_t copied = 0;
    std::mutex mutex;
    what.copying = [&](uint64_t bytes) {
        std::lock_guard lock(mutex);
        copied += bytes;
        return true;
    };
    MemoryResource ghost;
    auto stats = checkpointer_.run(what, ghost);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    EXPECT_EQ(order, (std::vector<std::string>{"wait", "stopped", "captured", "metadata"}));
    EXPECT_EQ(copied, stats->round_bytes + stats->last_bytes);
    EXPECT_GT(beats, 0U);
    auto importer = Importer::open(ghost);
    ASSERT_TRUE(importer.ok());
    EXPECT_EQ(importer->metadata().value("late", 0), 7);
    EXPECT_TRUE(importer->metadata().contains("keys"));
    // Memory given back in between costs nothing but time.
    checkpointer_.trim();
    EXPECT_EQ(checkpointer_.held(), 0U);
    EXPECT_TRUE(is_tracked(tree->root));
    what.incremental = true;
    what.wait_to_freeze = {};
    MemoryResource next;
    auto second = checkpointer_.run(what, next);
    ASSERT_TRUE(second.ok()) << second.error().message();
    EXPECT_LT(second->page_bytes, stats->page_bytes);
    ghost.rewind();
    auto chain = Importer::open(next);
    ASSERT_TRUE(chain.ok());
    ASSERT_TRUE(chain->add_parent(ghost).ok());
    Tree copy;
    auto held = hold(*chain, copy);
    ASSERT_TRUE(held.ok()) << held.error().message();
    ASSERT_TRUE(release_tree(*held).ok());
    EXPECT_GT(copy.healthy(), beats);
}

// Between two checkpoints the memory that the copy took is the tree's if it needs it.
TEST_F(CheckpointTest, CopyMemoryIsOfferedToKernel) {
    auto tree = Tree::start(25);
    auto what = request(*tree);
    what.keep_tracking = true;
    MemoryResource ghost;
    // Unlike memory itself it has none to give for the copy.
    FaultyResource behind(ghost, FaultyResource::Fault::none, 0);
    const uint64_t before = offered_bytes();
    auto stats = checkpointer_.run(what, behind);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    EXPECT_GE(checkpointer_.held(), stats->page_bytes);
    EXPECT_GE(offered_bytes(), before + stats->page_bytes / 10 * 9);
    what.incremental = true;
    MemoryResource next;
    FaultyResource behind_next(next, FaultyResource::Fault::none, 0);
    ASSERT_TRUE(checkpointer_.run(what, behind_next).ok());
    EXPECT_GE(offered_bytes(), before + stats->page_bytes / 10 * 9);
    EXPECT_GT(tree->healthy(), 0U);
    what.incremental = false;
    MemoryResource broken;
    FaultyResource full(broken, FaultyResource::Fault::fail_write, 1 << 20);
    ASSERT_FALSE(checkpointer_.run(what, full).ok());
    EXPECT_GE(offered_bytes(), before + stats->page_bytes / 10 * 9) << "after a failure too";
}

// criu has asked for guard pages when it gives up: what is told is why it did.
TEST_F(CheckpointTest, CriuFailureReasonIsReported) {
    // Its session is that of whoever started it, outside its PID name space.
    auto tree = Tree::start_program("/bin/sleep", {"1000"});
    while (read_status(fmt::format("/proc/{}", tree->root))->name != "sleep") usleep(1000);
    DumpRequest what;
    what.root = tree->root;
    what.externals = tree->keys();
    what.criu = {criu_program(), source_folder_.path(), 20};
    what.short_stop = what.leave_running = true;
    what.on_stopped = []() -> Status { return {}; };
    what.guards = [](pid_t) -> Result<PageRuns> {
        usleep(200000);  // it gives up meanwhile
        return PageRuns();
    };
    auto dump = TreeDump::prepare(what);
    ASSERT_TRUE(dump.ok()) << dump.error().message();
    SkeletonFiles files;
    const auto done = dump->run(files);
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().code, Code::refused);
    EXPECT_NE(done.error().message().find("session leader"), std::string::npos)
        << done.error().message();
    EXPECT_EQ(kill(tree->root, 0), 0);
}

TEST_F(CheckpointTest, CalledOffLeavesTreeRunning) {
    auto tree = Tree::start(24);
    uint64_t before = tree->healthy();
    auto what = request(*tree);
    what.while_stopped = []() -> Status {
        ADD_FAILURE() << "it was stopped";
        return {};
    };
    what.wait_to_freeze = [] { return make_error(Code::refused, "called off"); };
    MemoryResource ghost;
    auto stats = checkpointer_.run(what, ghost);
    ASSERT_FALSE(stats.ok());
    EXPECT_EQ(stats.error().tried, "called off");
    EXPECT_FALSE(is_tracked(tree->root));
    EXPECT_GT(tree->healthy(), before);
    what.wait_to_freeze = {};
    std::atomic<int> calls = 0;
    what.copying = [&](uint64_t) { return ++calls < 3; };
    stats = checkpointer_.run(what, ghost);
    ASSERT_FALSE(stats.ok());
    EXPECT_EQ(stats.error().code, Code::refused);
    EXPECT_FALSE(is_tracked(tree->root));
    EXPECT_GT(tree->healthy(), before);
    EXPECT_TRUE(ghost.bytes().empty());
}

TEST_F(CheckpointTest, LeaveStoppedKeepsTreeFrozen) {
    auto tree = Tree::start(24);
    const uint64_t before = tree->healthy();
    const auto states = [&] {
        std::string out;
        const auto tasks = list_tree(tree->root);
        for (const auto& task : *tasks) out += task.state;
        return out;
    };
    auto what = request(*tree);
    what.leave_stopped = true;
    MemoryResource ghost;
    FaultyResource full(ghost, FaultyResource::Fault::fail_write, 1 << 20);
    ASSERT_FALSE(checkpointer_.run(what, full).ok());
    EXPECT_GT(tree->healthy(), before) << "after a failure it runs";
    MemoryResource whole;
    ASSERT_TRUE(checkpointer_.run(what, whole).ok());
    EXPECT_EQ(states().find_first_not_of('T'), std::string::npos) << states();
    Tree copy;
    auto held = import(whole, copy);
    ASSERT_TRUE(held.ok()) << held.error().message();
    ASSERT_TRUE(release_tree(*held).ok());
    EXPECT_GT(copy.healthy(), before);
    ASSERT_TRUE(resume_tree(tree->root).ok());
    EXPECT_GT(tree->healthy(), before);
}

}  // namespace
}  // namespace ghost::core::test
