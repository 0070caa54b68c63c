// SPDX-License-Identifier: BSD-3-Clause
// Checkpoints of trees that go on running: the ghost shows the tree as it was while it was frozen.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <sys/mount.h>
#include <sys/prctl.h>

#include "tests/process/lazy_tree.hpp"
#include "ghost-core/criu/dump.hpp"
#include "tests/contract/faulty_resource.hpp"
#include "ghost-core/resource/memory.hpp"
#include "tests/process/ghost_checkpoints.hpp"
#include "tests/rounds.hpp"

namespace ghost::core::test {
namespace {

TEST_F(CheckpointTest, TreeAndGhostBothRun) {
    auto tree = Tree::start(24);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    auto stats = checkpointer_.run(request(*tree), ghost);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    std::printf("pause %.1f ms: skeleton %.1f, memory %.2f for %.1f KiB\n", stats->pause_us / 1e3,
                stats->skeleton_us / 1e3, stats->memory_us / 1e3,
                static_cast<double>(stats->last_bytes) / 1024);
    EXPECT_GT(stats->page_bytes, 15U << 20);
    EXPECT_FALSE(is_tracked(tree->root));
    const auto first = tree->healthy();
    EXPECT_GT(first, 0U);
    Tree copy;
    auto held = import(ghost, copy);
    ASSERT_TRUE(held.ok()) << held.error().message();
    ASSERT_TRUE(release_tree(*held).ok());
    EXPECT_GT(copy.healthy(), 0U);
    EXPECT_GT(tree->healthy(), first);
}

TEST_F(CheckpointTest, GhostHasMemoryOfFreeze) {
    for (const char* seed : {"1", "2", "3"}) {
        SCOPED_TRACE(seed);
        auto tree = start_churn({"churn", seed});
        usleep(100000);
        MemoryResource ghost;
        auto what = request(*tree);
        Memory truth;
        what.while_stopped = [&]() -> Status {
            truth = memory_of(tree->root);
            return {};
        };
        auto stats = checkpointer_.run(what, ghost);
        ASSERT_TRUE(stats.ok()) << stats.error().message();
        Tree copy;
        auto held = import(ghost, copy);
        ASSERT_TRUE(held.ok()) << held.error().message();
        expect_same(truth, memory_of(copy.root));
    }
}

// What the first thread of a tree's init has done so far: ticks of a processor, and sleeps.
uint64_t deeds_of(pid_t root) {
    uint64_t sum = 0;
    std::string word;
    std::ifstream stat(fmt::format("/proc/{}/task/{}/stat", root, root));
    for (int i = 1; i <= 15 && stat >> word; i++)
        if (i >= 14) sum += std::stoull(word);
    std::ifstream status(fmt::format("/proc/{}/task/{}/status", root, root));
    while (status >> word)
        if (word == "voluntary_ctxt_switches:" && status >> word) sum += std::stoull(word);
    return sum;
}

bool goes_on(pid_t root, uint64_t deeds = 3) {
    const auto enough = deeds_of(root) + deeds;
    for (int i = 0; i < 300 && deeds_of(root) < enough; i++) usleep(10000);
    return deeds_of(root) >= enough;
}

// One that writes faster than anybody copies: it is frozen no longer for that, and what it is about
// to write is copied first.
TEST_F(CheckpointTest, DeferredPagesAreCopiedBeforeWrite) {
    for (const bool huge : {false, true}) {
        SCOPED_TRACE(huge);
        auto tree = start_churn(huge ? std::vector<std::string>{"write", "128", "4000", "huge"}
                                     : std::vector<std::string>{"write", "128", "4000"});
        EXPECT_TRUE(tree->listen(20000).has_value());  // all of it has been written once
        auto what = request(*tree);
        what.defer_above_us = -1;
        what.keep_tracking = true;
        Memory truth;
        what.while_stopped = [&]() -> Status {
            truth = memory_of(tree->root);
            return {};
        };
        // Nobody copies before it has written somewhere.
        what.captured = [&](const CheckpointStats&) { EXPECT_TRUE(goes_on(tree->root)); };
        MemoryResource ghost;
        auto stats = checkpointer_.run(what, ghost);
        ASSERT_TRUE(stats.ok()) << stats.error().message();
        std::printf("pause %.1f ms, %.1f MB deferred in %.1f ms, faulted %.1f MB\n",
                    stats->pause_us / 1e3, static_cast<double>(stats->deferred_bytes) / 1e6,
                    stats->deferred_us / 1e3, static_cast<double>(stats->faulted_bytes) / 1e6);
        EXPECT_GT(stats->deferred_bytes, 127U << 20);
        EXPECT_GT(stats->faulted_bytes, 0U);
        EXPECT_LT(stats->last_bytes, 8U << 20);
        EXPECT_FALSE(is_tracked(tree->root));
        EXPECT_TRUE(goes_on(tree->root));
        Tree copy;
        auto held = import(ghost, copy);
        ASSERT_TRUE(held.ok()) << held.error().message();
        expect_same(truth, memory_of(copy.root));
        // The next one brings everything, and is right as well.
        what.incremental = true;
        MemoryResource next;
        stats = checkpointer_.run(what, next);
        ASSERT_TRUE(stats.ok()) << stats.error().message();
        ghost.rewind();
        auto importer = Importer::open(next);
        ASSERT_TRUE(importer.ok());
        ASSERT_TRUE(importer->add_parent(ghost).ok());
        Tree second;
        held = hold(*importer, second);
        ASSERT_TRUE(held.ok()) << held.error().message();
        expect_same(truth, memory_of(second.root));
        EXPECT_TRUE(goes_on(tree->root));
    }
}

// Memory that is given back, moved and made anew before it was copied is missed, never mistaken.
TEST_F(CheckpointTest, MemoryUnmappedDuringCopyIsHandled) {
    int whole = 0, missed = 0;
    for (int seed = 1; seed <= 8 || (whole == 0 && seed <= 40); seed++) {
        SCOPED_TRACE(seed);
        const bool calm = seed % 4 != 0;
        auto tree = start_churn({calm ? "calm" : "churn", std::to_string(seed)});
        ASSERT_TRUE(!calm || tree->listen(20000).has_value());
        usleep(100000);
        auto what = request(*tree);
        what.defer_above_us = -1;
        Memory truth;
        what.while_stopped = [&]() -> Status {
            truth = memory_of(tree->root);
            return {};
        };
        // Who churns does so before all is copied, however busy the machine is.
        what.captured = [&](const CheckpointStats&) {
            EXPECT_TRUE(calm || goes_on(tree->root, 50));
        };
        MemoryResource ghost;
        Checkpointer checkpointer;
        auto stats = checkpointer.run(what, ghost);
        EXPECT_TRUE(calm || goes_on(tree->root));
        EXPECT_FALSE(is_tracked(tree->root));
        if (!stats.ok()) {
            missed++;
            EXPECT_EQ(stats.error().code, Code::busy) << stats.error().message();
            // The next one is made the other way.
            stats = checkpointer.run(what, ghost);
            ASSERT_TRUE(stats.ok()) << stats.error().message();
            EXPECT_EQ(stats->deferred_bytes, 0U);
        } else {
            whole++;
            EXPECT_GT(stats->deferred_bytes, 0U);
        }
        Tree copy;
        auto held = import(ghost, copy);
        ASSERT_TRUE(held.ok()) << held.error().message();
        expect_same(truth, memory_of(copy.root));
        // Nobody is told anything: the other way at once.
        what.while_stopped = {};
        what.captured = {};
        MemoryResource again;
        Checkpointer other;
        stats = other.run(what, again);
        ASSERT_TRUE(stats.ok()) << stats.error().message();
    }
    std::printf("%d whole, %d missed\n", whole, missed);
    EXPECT_GT(whole, 0);
    EXPECT_GT(missed, 0);
}

// Whatever ends such a checkpoint, nobody is left waiting for it.
TEST_F(CheckpointTest, FailedCheckpointReleasesWriters) {
    auto tree = start_churn({"write", "64", "4000"});
    EXPECT_TRUE(tree->listen(20000).has_value());
    auto what = request(*tree);
    what.defer_above_us = -1;
    const auto fails = [&](const char* when) {
        SCOPED_TRACE(when);
        MemoryResource ghost;
        EXPECT_FALSE(checkpointer_.run(what, ghost).ok());
        EXPECT_TRUE(goes_on(tree->root));
        EXPECT_FALSE(is_tracked(tree->root));
    };
    for (const char* fault : {"1", "3", "5"}) {  // of criu, in the dump
        setenv("CRIU_FAULT", fault, 1);
        fails(fault);
        unsetenv("CRIU_FAULT");
    }
    what.while_stopped = [] { return make_error(Code::refused, "not this time"); };
    fails("while it is frozen");
    what.while_stopped = {};
    std::atomic<bool> captured = false;
    what.captured = [&](const CheckpointStats&) { captured = true; };
    what.copying = [&](uint64_t) { return !captured; };
    fails("called off while it is copied");
    what.copying = {};
    MemoryResource ghost;
    FaultyResource full(ghost, FaultyResource::Fault::fail_write, 70);
    EXPECT_FALSE(checkpointer_.run(what, full).ok());
    EXPECT_TRUE(goes_on(tree->root));
    MemoryResource good;
    auto stats = checkpointer_.run(what, good);
    ASSERT_TRUE(stats.ok()) << stats.error().message();
    EXPECT_GT(stats->deferred_bytes, 63U << 20);
}

// Where the guard pages of the init of a tree are.
PageRuns guards_of(pid_t root) {
    constexpr uint64_t lowest = 65536, highest = 0x7ffffffff000;
    auto scan = PageScan::open(root);
    EXPECT_TRUE(scan.ok());
    PageRuns out;
    EXPECT_TRUE(scan->guards({lowest, highest - lowest}, out).ok());
    make_set(out);
    return out;
}

// They are not looked for: whoever looks for what was written finds them, however often they were
// passed while the rest was protected. In memory of every kind.
TEST_F(CheckpointTest, GuardPagesAreRestored) {
    auto tree = start_churn({"guards"});
    ASSERT_TRUE(tree->listen(20000).has_value());
    if (guards_of(tree->root).empty()) GTEST_SKIP() << "this kernel does not tell guard pages";
    auto what = request(*tree);
    what.keep_tracking = true;
    std::vector<std::unique_ptr<MemoryResource>> ghosts;
    for (int i = 0; i < 4; i++) {
        PageRuns truth;
        Memory memory;
        what.while_stopped = [&]() -> Status {
            truth = guards_of(tree->root);
            memory = memory_of(tree->root);
            return {};
        };
        what.incremental = i > 0;
        ghosts.push_back(std::make_unique<MemoryResource>());
        auto stats = checkpointer_.run(what, *ghosts.back());
        ASSERT_TRUE(stats.ok()) << stats.error().message();
        ASSERT_GE(truth.size(), 4U);  // each area's own
        for (const auto& ghost : ghosts) ghost->rewind();
        auto importer = Importer::open(*ghosts.back());
        ASSERT_TRUE(importer.ok());
        for (size_t parent = ghosts.size() - 1; parent-- > 0;)
            ASSERT_TRUE(importer->add_parent(*ghosts[parent]).ok());
        Tree copy;
        auto held = hold(*importer, copy);
        ASSERT_TRUE(held.ok()) << held.error().message();
        EXPECT_EQ(truth, guards_of(copy.root)) << "generation " << i;
        expect_same(memory, memory_of(copy.root));
        usleep(30000);
    }
}

TEST_F(CheckpointTest, FailuresLeaveTheTreeRunningAndUntracked) {
    auto tree = Tree::start(12);
    uint64_t before = tree->healthy();
    MemoryResource whole;
    ASSERT_TRUE(checkpointer_.run(request(*tree), whole).ok());
    const uint64_t size = whole.bytes().size();
    for (uint64_t at : {uint64_t{0}, uint64_t{70}, size / 50, size / 2, size - 10}) {
        MemoryResource ghost;
        FaultyResource full(ghost, FaultyResource::Fault::fail_write, at);
        auto what = request(*tree);
        what.keep_tracking = true;
        EXPECT_FALSE(checkpointer_.run(what, full).ok()) << at;
        EXPECT_FALSE(checkpointer_.may_be_incremental(tree->root));
        EXPECT_FALSE(is_tracked(tree->root));
        const auto now = tree->healthy();
        EXPECT_GT(now, before) << at;
        before = now;
    }
    for (const char* fault : {"1", "3", "5"}) {  // of criu, in the dump
        setenv("CRIU_FAULT", fault, 1);
        MemoryResource ghost;
        EXPECT_FALSE(checkpointer_.run(request(*tree), ghost).ok()) << fault;
        unsetenv("CRIU_FAULT");
        EXPECT_FALSE(is_tracked(tree->root));
        const auto now = tree->healthy();
        EXPECT_GT(now, before) << fault;
        before = now;
    }
    auto what = request(*tree);
    what.while_stopped = [] { return make_error(Code::refused, "not this time"); };
    MemoryResource ghost;
    auto refused = checkpointer_.run(what, ghost);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().tried, "not this time");
    EXPECT_GT(tree->healthy(), before);
    what.root = 999999999;
    EXPECT_FALSE(checkpointer_.run(what, ghost).ok());
}

TEST_F(CheckpointTest, SecondCheckpointKeepsTracking) {
    auto tree = Tree::start(48);
    ASSERT_GT(tree->healthy(), 0U);
    auto what = request(*tree);
    what.incremental = true;
    MemoryResource none;
    EXPECT_EQ(checkpointer_.run(what, none).error().code, Code::invalid);
    what.incremental = false;
    what.keep_tracking = true;
    MemoryResource full;
    auto first = checkpointer_.run(what, full);
    ASSERT_TRUE(first.ok()) << first.error().message();
    EXPECT_TRUE(is_tracked(tree->root));
    ASSERT_TRUE(checkpointer_.may_be_incremental(tree->root));
    // What it writes until the second one depends on the machine: it writes nothing.
    const auto tasks = list_tree(tree->root);
    ASSERT_TRUE(tasks.ok());
    for (const auto& task : *tasks) kill(task.pid, SIGSTOP);
    what.incremental = true;
    MemoryResource next;
    auto second = checkpointer_.run(what, next);
    for (const auto& task : *tasks) kill(task.pid, SIGCONT);
    ASSERT_TRUE(second.ok()) << second.error().message();
    EXPECT_LT(second->page_bytes, first->page_bytes / 2);
    EXPECT_EQ(second->as_parent.generation, first->as_parent.generation + 1);
    EXPECT_GT(tree->healthy(), 0U);
    checkpointer_.stop_tracking();
    EXPECT_FALSE(is_tracked(tree->root));
    EXPECT_GT(tree->healthy(), 0U);
}

// A criu waits between the checkpoints of a tree, whatever happens meanwhile.
TEST_F(CheckpointTest, CriuIsReadyForNextCheckpoint) {
    auto tree = Tree::start(12);
    ASSERT_GT(tree->healthy(), 0U);
    auto what = request(*tree);
    what.keep_tracking = what.stay_ready = true;
    const auto checkpoint = [&](const char* when) {
        SCOPED_TRACE(when);
        MemoryResource ghost;
        auto stats = checkpointer_.run(what, ghost);
        ASSERT_TRUE(stats.ok()) << stats.error().message();
        EXPECT_GT(tree->healthy(), 0U);
        EXPECT_NE(our_criu(), 0);
        what.incremental = true;
    };
    EXPECT_EQ(our_criu(), 0);
    checkpoint("full");
    const pid_t first = our_criu();
    checkpoint("at once");
    EXPECT_NE(our_criu(), first);
    usleep(1100000);  // longer than what criu knows is believed
    EXPECT_EQ(tree->ask(5000, "advise\n").value_or("nothing"), "advised");
    checkpoint("after a while");
    usleep(1100000);
    const auto& folder = target_folder_.path();
    ASSERT_EQ(mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=1m"), 0);
    checkpoint("after a mount");
    EXPECT_EQ(umount(folder.c_str()), 0);
    kill(our_criu(), SIGKILL);
    usleep(1100000);
    checkpoint("when it has been killed");
    auto other = Tree::start(4);
    ASSERT_GT(other->healthy(), 0U);
    what = request(*other);
    what.keep_tracking = what.stay_ready = true;
    checkpoint("of another tree");
    checkpointer_.stop_tracking();
    EXPECT_EQ(our_criu(), 0);
    EXPECT_GT(other->healthy(), 0U);
}

// The tree runs, and checks all of its memory, while its pages are on the way.
TEST_F(CheckpointTest, LazyRestoreRunsBeforePages) {
    auto tree = Tree::start(64);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    ASSERT_TRUE(checkpointer_.run(request(*tree), ghost).ok());
    const auto bytes = ghost.bytes();
    Tree copy;
    auto [input, output] = copy.plug();
    const auto keys = tree->keys();
    auto lazy = LazyTree::make(bytes, {criu_program(), target_folder_.path(), 20},
                               {{input.get(), keys.at(0)}, {output.get(), keys.at(1)}});
    ASSERT_TRUE(lazy.ok()) << lazy.error().message();
    copy.root = (*lazy)->held().root;
    ASSERT_TRUE(release_tree((*lazy)->held()).ok());
    EXPECT_GT(copy.healthy(), 0U);
    ASSERT_TRUE((*lazy)->wait().ok());
    EXPECT_GT((*lazy)->stats().faults, 0U);
    EXPECT_GT(copy.healthy(), 0U);
    EXPECT_GT(tree->healthy(), 0U);
}

// What a server of pages says of its tree, right before it dies.
struct LastWords {
    pid_t root = 0;
    uint64_t in_place = 0;  // bytes of its pages
};

// Whoever has the missing pages dies: the tree must not go on with zeros in their place.
TEST_F(CheckpointTest, LazyTreeEndsWhenPageServerDies) {
    auto tree = Tree::start(64);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    const auto made = checkpointer_.run(request(*tree), ghost);
    ASSERT_TRUE(made.ok());
    const auto bytes = ghost.bytes();
    const auto keys = tree->keys();
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    const auto serve_and_die = [&](int input, int output, int told) {
        auto lazy = LazyTree::make(bytes, {criu_program(), target_folder_.path(), 20},
                                   {{input, keys.at(0)}, {output, keys.at(1)}});
        if (!lazy.ok() || !release_tree((*lazy)->held()).ok()) _exit(1);
        const auto stats = (*lazy)->stats();
        const LastWords words{(*lazy)->held().root, stats.demand_bytes + stats.background_bytes};
        if (write(told, &words, sizeof words) != sizeof words) _exit(1);
        kill(getpid(), SIGKILL);
    };
    // One that has to wait for a processor may find all pages in place; then it is done again.
    LastWords words;
    std::optional<Tree> copy;
    for (int i = 0; i < 20 && words.root == 0; i++) {
        auto [input, output] = copy.emplace().plug();
        const Pipe told = make_pipe();
        const pid_t server = fork();
        if (server == 0) serve_and_die(input.get(), output.get(), told.in.get());
        ASSERT_EQ(read(told.out.get(), &words, sizeof words), static_cast<ssize_t>(sizeof words));
        waitpid(server, nullptr, 0);
        if (words.in_place + (4 << 20) > made->page_bytes) end_tree(words.root);
    }
    ASSERT_NE(words.root, 0) << "there is no tree that lacks pages";
    int status = 0;
    pid_t ended = 0;
    for (int i = 0; i < 5000 && ended == 0; i++, usleep(1000))
        ended = waitpid(words.root, &status, WNOHANG);
    EXPECT_EQ(ended, words.root) << "it runs on with " << words.in_place << " of "
                                 << made->page_bytes << " bytes";
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    if (ended == 0) end_tree(words.root);
    for (int i = 0; i < 100; i++, usleep(1000))  // the keeper
        for (const pid_t child : children_of(getpid()))
            if (child != tree->root) waitpid(child, nullptr, WNOHANG);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    EXPECT_GT(tree->healthy(), 0U);
}

TEST_F(CheckpointTest, LazyRestoreOfDamagedGhostIsRefused) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    ASSERT_TRUE(checkpointer_.run(request(*tree), ghost).ok());
    auto bytes = ghost.bytes();
    bytes[bytes.size() / 2] ^= 1;
    const auto lazy = LazyTree::make(bytes, {criu_program(), target_folder_.path(), 20}, {});
    EXPECT_EQ(lazy.error().code, Code::corrupt);
}

// A full ghost and three of differences under churn: the last one, on its parents, is the memory of
// the last stop. Wrong, old and missing parents are refused.
TEST_F(CheckpointTest, ChainHasMemoryOfLastFreeze) {
    const auto seeds = ghost::test::rounds("GHOST_TEST_SEEDS", 1, 20);
    for (long long i = 0; i < seeds; i++) {
        const auto seed = std::to_string(11 + i);
        SCOPED_TRACE(seed);
        auto tree = start_churn({"churn", seed});
        usleep(100000);
        std::vector<std::unique_ptr<MemoryResource>> ghosts;
        Memory truth;
        auto what = request(*tree);
        what.keep_tracking = true;
        what.while_stopped = [&]() -> Status {
            truth = memory_of(tree->root);
            return {};
        };
        for (int i = 0; i < 4; i++) {
            what.incremental = i > 0;
            ghosts.push_back(std::make_unique<MemoryResource>());
            auto stats = checkpointer_.run(what, *ghosts.back());
            ASSERT_TRUE(stats.ok()) << stats.error().message();
            EXPECT_EQ(stats->as_parent.generation, i + 1);
            usleep(20000);
        }
        auto alone = Importer::open(*ghosts[3]);
        ASSERT_TRUE(alone.ok());
        EXPECT_EQ(alone->hold({criu_program(), target_folder_.path(), 20}, {}).error().code,
                  Code::invalid);
        EXPECT_EQ(alone->add_parent(*ghosts[1]).error().code, Code::refused);
        for (const auto& ghost : ghosts) ghost->rewind();
        auto importer = Importer::open(*ghosts[3]);
        ASSERT_TRUE(importer.ok());
        for (int i = 2; i >= 0; i--) {
            ASSERT_TRUE(importer->parent());
            ASSERT_TRUE(importer->add_parent(*ghosts[static_cast<size_t>(i)]).ok());
        }
        EXPECT_FALSE(importer->parent());
        EXPECT_EQ(importer->add_parent(*ghosts[0]).error().code, Code::invalid);
        Tree copy;
        auto held = hold(*importer, copy);
        ASSERT_TRUE(held.ok()) << held.error().message();
        expect_same(truth, memory_of(copy.root));
    }
}

}  // namespace
}  // namespace ghost::core::test
