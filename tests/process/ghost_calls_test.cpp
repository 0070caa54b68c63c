// SPDX-License-Identifier: BSD-3-Clause
// System calls with a time limit, of processes that are stopped meanwhile: none ends early or by
// the stop, and none waits much longer than it was asked to, there or where the process goes.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "base/log.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/engine/checkpoint.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/criu/criu.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/ptrace_session.hpp"
#include "ghost-core/criu/stopped_tree.hpp"
#include "ghost-core/memory/injection.hpp"
#include "ghost-core/resource/memory.hpp"
#include "tests/process/ghost_tree.hpp"

namespace ghost::core::test {
namespace {

constexpr int64_t asked_us = 4000000;
constexpr int64_t busy_us = asked_us * 6 / 10;  // so long the tree is stopped again and again
constexpr int64_t late_us = 1300000;  // less than what a call made anew at busy_us is late by
const std::string secret = "0123456789abcdef";
// Calls of the C library that a handler does not end.
const std::set<std::string> waits_on = {"condition", "clockcond", "lock", "pilock"};

struct Outcome {
    int error = 0;
    int64_t took_us = 0;
    int handled = 0;  // signals
};
using Outcomes = std::map<std::string, Outcome>;

std::string sleeper_program() {
    auto program = subject_program();
    return program.replace(program.rfind('/') + 1, std::string::npos, "ghost_sleeper");
}

// Words of the first line of a file.
std::vector<std::string> words_of(const std::string& path) {
    std::ifstream in(path);
    std::string line, word;
    std::getline(in, line);
    std::istringstream words(line);
    std::vector<std::string> out;
    while (words >> word) out.push_back(word);
    return out;
}

class Calls : public ::testing::Test {
  protected:
    void SetUp() override {
        if (const auto reason = skip_reason(); !reason.empty()) GTEST_SKIP() << reason;
        log::setup("ghost_calls_test", log::level_from_environment());
        if (!knows_short_stop({criu_program(), source_.path(), 20}))
            GTEST_SKIP() << "criu was built without our patches";
    }
    void start(const std::string& what) {
        tree_ = Tree::start_program(sleeper_program(), {std::to_string(asked_us / 1000), what});
        begin_ = monotonic_us();
        const size_t threads = names(what).size() + 1;
        for (const int64_t limit = begin_ + 60000000; waiting() < threads;) {
            ASSERT_LT(monotonic_us(), limit) << waiting() << " threads wait";
            usleep(1000);
        }
    }

    // Threads that are in a system call. (The number is said of one that sleeps only.)
    size_t waiting() const {
        size_t out = 0;
        const auto folder = fmt::format("/proc/{}/task", tree_->root);
        for (const pid_t tid : numbers_in(folder)) {
            const auto name = words_of(fmt::format("{}/{}/comm", folder, tid));
            const auto call = words_of(fmt::format("{}/{}/syscall", folder, tid));
            const bool named = tid == tree_->root || (!name.empty() && name[0] != "ghost_sleeper");
            out += named && call.size() > 1 && call[0] != "-1";
        }
        return out;
    }

    bool is_busy() const { return monotonic_us() < begin_ + busy_us; }

    Outcomes outcomes(Tree& tree) {
        Outcomes out;
        for (;;) {
            const auto line = tree.listen(2 * asked_us / 1000);
            EXPECT_TRUE(line.has_value()) << "no answer";
            if (!line || *line == "end") return out;
            std::istringstream words(*line);
            std::string name;
            Outcome one;
            words >> name >> one.error >> one.took_us >> one.handled;
            out[name] = one;
        }
    }

    static void expect_whole(const Outcomes& all, size_t count, int64_t longest_us) {
        EXPECT_EQ(all.size(), count);
        for (const auto& [name, one] : all) {
            EXPECT_EQ(one.error, 0)
                << name << ": " << std::strerror(one.error) << " after " << one.took_us << " us";
            EXPECT_GE(one.took_us, asked_us) << name;
            EXPECT_LE(one.took_us, longest_us) << name;
        }
    }

    void checkpoint(MemoryResource& ghost) {
        auto stats = checkpointer_.run(request_for<CheckpointRequest>(*tree_, source_), ghost);
        EXPECT_TRUE(stats.ok()) << stats.error().message();
    }

    // The ghost runs as `copy_`.
    void run_ghost(Resource& ghost) {
        auto importer = Importer::open(ghost);
        ASSERT_TRUE(importer.ok()) << importer.error().message();
        auto held = hold_in(target_, *importer, copy_);
        ASSERT_TRUE(held.ok()) << held.error().message();
        ASSERT_TRUE(release_tree(*held).ok());
    }

    // Of all calls of a kind; none of a single call.
    static std::vector<std::string> names(const std::string& what = "all") {
        std::vector<std::string> out;
        FILE* in = popen((sleeper_program() + " names " + what).c_str(), "r");
        for (char line[64]; in != nullptr && std::fgets(line, sizeof line, in) != nullptr;)
            out.emplace_back(line, std::strlen(line) - 1);
        if (in != nullptr) pclose(in);
        return out;
    }

    WorkFolder source_, target_;
    std::unique_ptr<Tree> tree_;
    Tree copy_;
    Checkpointer checkpointer_;
    int64_t begin_ = 0;
};

TEST_F(Calls, CheckpointKeepsTimeoutsOfOriginal) {
    start("all");
    for (int i = 1; i <= 3; i++) {
        while (monotonic_us() < begin_ + busy_us * i / 3) usleep(1000);
        MemoryResource ghost;
        checkpoint(ghost);
    }
    expect_whole(outcomes(*tree_), names().size(), asked_us + late_us);
}

// Also where the freeze comes to nothing, or another process ends it.
TEST_F(Calls, FreezeKeepsTimeouts) {
    start("here");
    for (int i = 1; i <= 3; i++) {
        while (monotonic_us() < begin_ + busy_us * i / 3) usleep(1000);
        const auto stopped = StoppedTree::stop(tree_->root, 1000000);
        ASSERT_TRUE(stopped.ok()) << stopped.error().message();
        if (i == 2) {
            const auto again = StoppedTree::stop(tree_->root, 1000000);
            ASSERT_TRUE(again.ok()) << again.error().message();
        }
        ASSERT_TRUE(resume_tree(tree_->root).ok());
    }
    expect_whole(outcomes(*tree_), names("here").size(), asked_us + late_us);
}

TEST_F(Calls, HoldKeepsTimeouts) {
    start("here");
    for (int i = 1; i <= 3; i++) {
        while (monotonic_us() < begin_ + busy_us * i / 3) usleep(1000);
        const auto held =
            PtraceSession::take(tree_->root, PtraceSession::numbers(tree_->root), 1000000);
        ASSERT_TRUE(held.ok()) << held.error().message();
    }
    expect_whole(outcomes(*tree_), names("here").size(), asked_us + late_us);
}

// Each thread is the one that makes them.
TEST_F(Calls, CallsInsideKeepTimeouts) {
    start("here");
    for (int i = 1; i <= 3; i++) {
        while (monotonic_us() < begin_ + busy_us * i / 3) usleep(1000);
        for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", tree_->root))) {
            const auto status = inject(
                tree_->root, 1000000,
                [](HeldThread& thread) -> Status {
                    const auto answer = thread.call(SYS_getpid);
                    return answer ? Status() : Status(answer.error());
                },
                tid);
            ASSERT_TRUE(status.ok()) << status.error().message();
        }
    }
    expect_whole(outcomes(*tree_), names("here").size(), asked_us + late_us);
}

// Some bytes are an answer already.
TEST_F(Calls, FreezeEndsCallThatHasPart) {
    start("part");
    ASSERT_TRUE(StoppedTree::stop(tree_->root, 1000000).ok());
    ASSERT_TRUE(resume_tree(tree_->root).ok());
    const auto part = outcomes(*tree_)["part"];
    EXPECT_EQ(part.error, 0);
    EXPECT_LT(part.took_us, asked_us);
}

// All of them, each with a call in its only thread.
TEST_F(Calls, CheckpointKeepsTimeoutsOfMainThread) {
    std::vector<std::unique_ptr<Tree>> trees;
    const auto all = names();
    for (const auto& name : all) {
        start(name);
        trees.push_back(std::move(tree_));
    }
    for (int i = 1; i <= 3; i++) {
        while (monotonic_us() < begin_ + busy_us * i / 3) usleep(1000);
        for (auto& tree : trees) {
            tree_.swap(tree);
            MemoryResource ghost;
            checkpoint(ghost);
            tree_.swap(tree);
        }
    }
    Outcomes found;
    for (auto& tree : trees) found.merge(outcomes(*tree));
    expect_whole(found, all.size(), asked_us + late_us);
}

// Without the tracking of writes before it, which interrupts the first thread once more: the
// first time that a call is interrupted at all, or not.
TEST_F(Calls, RestoreRestartsInterruptedCalls) {
    for (const int checkpoints : {0, 2}) {
        SCOPED_TRACE(checkpoints);
        start("all");
        for (int i = 0; i < checkpoints; i++) {
            MemoryResource ghost;
            checkpoint(ghost);
        }
        while (is_busy()) usleep(1000);
        MemoryResource ghost;
        auto sent = export_tree(request_for<ExportRequest>(*tree_, source_), ghost);
        ASSERT_TRUE(sent.ok()) << sent.error().message();
        tree_->end();
        // The time in a ghost counts by CLOCK_REALTIME, and not by any other.
        while (checkpoints == 0 && monotonic_us() < begin_ + asked_us) usleep(1000);
        run_ghost(ghost);
        expect_whole(outcomes(copy_), names().size(), asked_us + late_us);
        copy_.end();
    }
}

TEST_F(Calls, RestoreOfConcurrentGhostRestartsCalls) {
    start("all");
    MemoryResource first, second;
    while (is_busy()) usleep(1000);
    checkpoint(first);
    checkpoint(second);
    run_ghost(second);
    expect_whole(outcomes(copy_), names().size(), asked_us + late_us);
    expect_whole(outcomes(*tree_), names().size(), asked_us + late_us);
}

// Of every thread that is frozen one signal; the handler runs there and at the target.
TEST_F(Calls, SignalDuringMoveInterruptsCall) {
    start("signals");
    kill(tree_->root, SIGSTOP);
    const auto folder = fmt::format("/proc/{}/task", tree_->root);
    for (const pid_t tid : numbers_in(folder)) {
        const auto name = words_of(fmt::format("{}/{}/comm", folder, tid));
        if (tid != tree_->root)
            syscall(SYS_tgkill, tree_->root, tid, name.at(0) == "answer" ? SIGUSR2 : SIGUSR1);
    }
    MemoryResource ghost;
    auto sent = export_tree(request_for<ExportRequest>(*tree_, source_), ghost);
    ASSERT_TRUE(sent.ok()) << sent.error().message();
    const auto keys = tree_->keys();
    run_ghost(ghost);
    ASSERT_TRUE(resume_tree(tree_->root).ok());
    for (const pid_t root : {tree_->root, copy_.root}) kill(root, SIGCONT);
    for (Tree* tree : {tree_.get(), &copy_}) {
        SCOPED_TRACE(tree == &copy_ ? "copy" : "original");
        const auto all = outcomes(*tree);
        EXPECT_EQ(all.size(), names("signals").size());
        for (const auto& [name, one] : all) {
            EXPECT_EQ(one.handled, 1) << name;
            if (waits_on.contains(name)) {
                EXPECT_EQ(one.error, 0) << name;
                EXPECT_GE(one.took_us, asked_us);
            } else if (name == "answer") {  // its handler lets the call go on, and answers it
                EXPECT_EQ(one.error, 0);
            } else {
                EXPECT_EQ(one.error, EINTR) << name;
                EXPECT_LT(one.took_us, name == "two" ? 2 * asked_us : asked_us) << name;
            }
        }
    }
}

// No stop ends a call that waits for ever.
TEST_F(Calls, CheckpointKeepsEndlessCalls) {
    start("signals");
    const size_t before = waiting();
    for (int i = 0; i < 2; i++) {
        MemoryResource ghost;
        checkpoint(ghost);
        for (const int64_t limit = monotonic_us() + 1000000; waiting() < before;)
            ASSERT_LT(monotonic_us(), limit) << waiting() << " of " << before << " wait";
    }
    const auto folder = fmt::format("/proc/{}/task", tree_->root);
    for (const pid_t tid : numbers_in(folder)) {
        const auto name = words_of(fmt::format("{}/{}/comm", folder, tid));
        if (tid != tree_->root)
            syscall(SYS_tgkill, tree_->root, tid, name.at(0) == "answer" ? SIGUSR2 : SIGUSR1);
    }
    EXPECT_EQ(outcomes(*tree_).size(), names("signals").size());
}

// While a checkpoint has the tree frozen, a signal for the original alone.
TEST_F(Calls, SignalDuringCheckpointInterruptsCall) {
    start("nanosleep");
    auto what = request_for<CheckpointRequest>(*tree_, source_);
    what.while_stopped = [&]() -> Status {
        kill(tree_->root, SIGUSR1);
        return {};
    };
    MemoryResource ghost;
    ASSERT_TRUE(checkpointer_.run(what, ghost).ok());
    run_ghost(ghost);
    const auto original = outcomes(*tree_)["nanosleep"], copy = outcomes(copy_)["nanosleep"];
    EXPECT_EQ(original.error, EINTR);
    EXPECT_EQ(original.handled, 1);
    EXPECT_LT(original.took_us, asked_us);
    EXPECT_EQ(copy.error, 0);
    EXPECT_EQ(copy.handled, 0);
    EXPECT_GE(copy.took_us, asked_us);
}

// The kernel keeps what is left, but where criu's own code in the first thread was let run to its
// end: there the call is made anew.
TEST_F(Calls, CriuKilledKeepsCalls) {
    if (!survives_kill(criu_program())) GTEST_SKIP() << "criu without our change";
    int killed = 0, all = 0;
    for (const std::string kind : {"nanosleep", "poll", "select", "semaphore", "futex", "all"}) {
        SCOPED_TRACE(kind);
        start(kind);
        for (; is_busy(); all++) {
            MemoryResource ghost;
            auto sent = [&] {
                CriuKiller killer(all * 7919 % 10000);
                return export_tree(request_for<ExportRequest>(*tree_, source_), ghost);
            }();
            if (sent.ok())
                ASSERT_TRUE(resume_tree(tree_->root).ok());  // criu was through before
            else
                killed++;
        }
        expect_whole(outcomes(*tree_), kind == "all" ? names().size() : 1,
                     busy_us + asked_us + late_us);
    }
    std::printf("%d of %d dumps were killed\n", killed, all);
    EXPECT_GT(killed, all / 4);
}

TEST_F(Calls, LiveMoveRestartsInterruptedCalls) {
    using Way = std::pair<int, PageOrder>;
    for (const auto& [checkpoints, order] :
         {Way{0, PageOrder::pre_copy}, Way{2, PageOrder::pre_copy}, Way{0, PageOrder::post_copy}}) {
        SCOPED_TRACE(checkpoints);
        SCOPED_TRACE(order == PageOrder::post_copy ? "post-copy" : "pre-copy");
        start("live");
        for (int i = 0; i < checkpoints; i++) {
            MemoryResource ghost;
            checkpoint(ghost);
        }
        while (is_busy()) usleep(1000);
        auto links = connect(secret);
        LiveImportRequest to;
        to.criu = {criu_program(), target_.path(), 20};
        const auto keys = tree_->keys();
        const auto [input, output] = copy_.plug();
        to.inherit = [&](const GhostMetadata&) -> Result<std::vector<InheritFd>> {
            return std::vector<InheritFd>{{input.get(), keys.at(0)}, {output.get(), keys.at(1)}};
        };
        Result<LiveImport> got = make_error(Code::internal, "not run");
        std::thread importer([&] { got = live_import(to, *links.target); });
        auto from = request_for<LiveExportRequest>(*tree_, source_);
        from.order = order;
        const auto sent = live_export(from, *links.source);
        importer.join();
        ASSERT_EQ(sent.outcome, LiveOutcome::moved) << sent.error->message();
        ASSERT_TRUE(got.ok()) << got.error().message();
        tree_->end();
        copy_.root = got->root;
        expect_whole(outcomes(copy_), names("live").size(), asked_us + late_us);
        copy_.end();
    }
}

}  // namespace
}  // namespace ghost::core::test
