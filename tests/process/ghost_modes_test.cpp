// SPDX-License-Identifier: BSD-3-Clause
// Every mode of an export through the installed C++ header: real programs leave and come back on
// this machine, and find out themselves whether they are whole; what is cancelled or loses its
// target goes on.
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sys/mman.h>
#include <thread>

#include "tests/free_port.h"
#include "tests/process/api_program.hpp"
#include "tests/process/live_subject.hpp"

namespace {

using api_test::now_ms;
using api_test::Program;
using api_test::text;
using ghost::Ghost;
using ghost::core::test::Ask;
using ghost::core::test::Beats;

constexpr size_t page = 4096;

// Its memory changes only when it is told to: "set PAGE VALUE", "sum".
int be_subject(size_t pages) {
    std::vector<char> memory(pages * page);
    for (size_t i = 0; i < pages; i++) memory[i * page] = static_cast<char>(i % 127 + 1);
    char line[64];
    while (std::fgets(line, sizeof line, stdin) != nullptr) {
        unsigned at = 0, value = 0;
        if (std::sscanf(line, "set %u %u", &at, &value) == 2)
            memory[at % pages * page] = static_cast<char>(value);
        unsigned long long sum = 0;
        for (size_t i = 0; i < pages; i++)
            sum = sum * 31 + static_cast<unsigned char>(memory[i * page]);
        std::printf("%llu %s\n", sum, std::getenv("GHOST_CLONE"));
        std::fflush(stdout);
    }
    return 5;
}

class Modes : public ::testing::Test {
  protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "needs root";
        std::error_code none;
        const auto criu = std::filesystem::canonical("criu/sbin/criu", none);
        if (!none) setenv("GHOST_CRIU", criu.c_str(), 0);
        const auto init = std::filesystem::absolute("pmix-plugin/wrapper/ghost-init");
        setenv("GHOST_INIT", init.c_str(), 0);
        ASSERT_NE(mkdtemp(folder_.data()), nullptr);
        auto made = Ghost::make();
        ASSERT_TRUE(made);
        g_.emplace(std::move(*made));
    }
    void TearDown() override {
        EXPECT_TRUE(becomes([this] { return left().empty(); })) << "is left: " << left();
        std::filesystem::remove_all(folder_);
        EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
        for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
            EXPECT_EQ(entry.path().filename().string().find("." + std::to_string(getpid()) + "-"),
                      std::string::npos)
                << entry.path();
    }

    static bool becomes(const std::function<bool()>& wanted) {
        const int64_t limit = now_ms() + 60'000;
        while (!wanted() && now_ms() < limit) usleep(1000);
        return wanted();
    }
    // A process that has been given the folder, as every subject in it has.
    std::string left() const {
        for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
            std::ifstream file(entry.path() / "cmdline");
            std::string words;
            std::getline(file, words);  // it may have ended: iterators would throw
            if (words.find(folder_) != std::string::npos) return entry.path();
        }
        return {};
    }
    static std::string own_program() { return std::filesystem::read_symlink("/proc/self/exe"); }
    void start_quiet(Program& tree, const std::string& pages) const {
        tree.start({own_program(), "subject", pages, folder_});
    }
    std::string path(const std::string& name) const { return folder_ + "/" + name; }

    std::string folder_ = "/var/tmp/ghost-modes.XXXXXX";
    std::optional<Ghost> g_;
};

TEST_F(Modes, StartedProgramsEndAsTheyDo) {
    auto started = ghost::start_process({"sh", "-c", "exit 7"});
    ASSERT_TRUE(started) << text(started.failure());
    auto ended = ghost::wait_process(*started);
    ASSERT_TRUE(ended) << text(ended.failure());
    EXPECT_TRUE(WIFEXITED(*ended));
    EXPECT_EQ(WEXITSTATUS(*ended), 7);
    started = ghost::start_process({"sh", "-c", "kill -KILL $$"});
    ASSERT_TRUE(started) << text(started.failure());
    ended = ghost::wait_process(*started);
    ASSERT_TRUE(ended) << text(ended.failure());
    EXPECT_TRUE(WIFSIGNALED(*ended));
    EXPECT_EQ(WTERMSIG(*ended), SIGKILL);
    EXPECT_EQ(ghost::wait_process(*started).failure().code, ECHILD);
    EXPECT_EQ(ghost::start_process({"no-such-program-anywhere"}).failure().code, ENOENT);
    EXPECT_EQ(ghost::start_process({}).failure().code, EINVAL);
}

TEST_F(Modes, WhatCannotBeIsRefusedBeforeAnything) {
    EXPECT_EQ(g_->mode(static_cast<ghost_mode>(9)).failure().code, EINVAL);
    EXPECT_EQ(g_->based_on(*g_).failure().code, EINVAL);
    Program tree;
    start_quiet(tree, "16");
    ASSERT_TRUE(g_->plug(path("a")));
    ASSERT_TRUE(g_->mode(GHOST_MODE_LIVE));
    EXPECT_EQ(g_->export_process(tree.root).failure().code, EINVAL) << "then is not kill";
    ASSERT_TRUE(g_->then(GHOST_THEN_KILL));
    EXPECT_EQ(g_->export_process(tree.root).failure().code, EINVAL) << "a file is no network";
    EXPECT_EQ(g_->import_process().failure().code, EINVAL);
    EXPECT_EQ(g_->statistics().outcome, GHOST_OUTCOME_NONE);
    ASSERT_TRUE(g_->mode(GHOST_MODE_STOP));
    auto parent = Ghost::make();
    ASSERT_TRUE(g_->based_on(*parent));
    EXPECT_EQ(g_->export_process(tree.root).failure().code, EINVAL) << "incremental, but stopped";
    EXPECT_EQ(g_->statistics().outcome, GHOST_OUTCOME_STAYED);
    ASSERT_TRUE(g_->mode(GHOST_MODE_CONCURRENT));
    EXPECT_EQ(g_->export_process(tree.root).failure().code, EPERM) << "the parent does not track";
    const auto answer = tree.ask();
    EXPECT_TRUE(answer && answer->ends_with(" 0")) << answer.value_or("nothing");
    EXPECT_FALSE(std::filesystem::exists(path("a")));
    // Not started so that it can leave in another way.
    const pid_t child = fork();
    if (child == 0) {
        for (;;) pause();
    }
    ASSERT_TRUE(g_->based_on(nullptr));
    EXPECT_EQ(g_->export_process(child).failure().code, EPERM);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
}

// The ghost is of one moment although the original writes all the time, and both live.
TEST_F(Modes, ConcurrentCopiesWhatRunsOn) {
    Program original, copy;
    original.start({"tests/process/ghost_subject", "run", "64", folder_});
    ASSERT_GT(original.healthy(), 0U);
    ASSERT_TRUE(g_->plug(path("a")));
    ASSERT_TRUE(g_->mode(GHOST_MODE_CONCURRENT));
    const auto done = g_->export_process(original.root);
    ASSERT_TRUE(done) << text(done.failure());
    const auto figures = g_->statistics();
    EXPECT_EQ(figures.outcome, GHOST_OUTCOME_DONE);
    EXPECT_GT(figures.page_bytes, 32U << 20);
    EXPECT_LT(figures.stopped_us, figures.total_us / 2) << "it was stopped while all was written";
    const auto before = original.healthy();
    copy.import(*g_);
    EXPECT_GT(copy.healthy(), 0U);
    EXPECT_GT(original.healthy(), before);
}

TEST_F(Modes, ConcurrentStopsOrKillsWhenAllIsWritten) {
    Program tree;
    start_quiet(tree, "16");
    const auto sum = tree.ask();
    ASSERT_TRUE(sum);
    ASSERT_TRUE(g_->plug(path("a")));
    ASSERT_TRUE(g_->mode(GHOST_MODE_CONCURRENT));
    ASSERT_TRUE(g_->then(GHOST_THEN_STOP));
    ASSERT_TRUE(g_->export_process(tree.root)) << ghost_error();
    EXPECT_FALSE(tree.ask("sum\n", 200)) << "it is stopped";
    ASSERT_TRUE(ghost::resume_process(tree.root));
    EXPECT_EQ(tree.listen(5000), sum);
    ASSERT_TRUE(g_->then(GHOST_THEN_KILL));
    ASSERT_TRUE(g_->export_process(tree.root)) << ghost_error();
    tree.ended();
    tree.import(*g_);
    EXPECT_EQ(tree.ask(), sum);
}

// In memory, in a file of the caller's and by specification: the key's owner has made it, or it is
// not imported.
TEST_F(Modes, SignedGhostIsImportedByItsSignersKey) {
    const auto mine = path("mine"), other = path("other");
    ASSERT_EQ(ghost_make_keys(mine.c_str()), 0) << ghost_error();
    ASSERT_EQ(ghost_make_keys(other.c_str()), 0) << ghost_error();
    Program tree;
    start_quiet(tree, "16");
    const auto sum = tree.ask();
    ASSERT_TRUE(sum);
    auto buffer = ghost::Buffer::make(16 << 20);
    auto file = ghost::File::open(path("file"));
    for (const int place : {0, 1, 2}) {
        SCOPED_TRACE(place);
        const auto plugged = place == 0   ? g_->plug(*buffer)
                             : place == 1 ? g_->plug(*file)
                                          : g_->plug("zstd:" + path("specified"));
        ASSERT_TRUE(plugged);
        ASSERT_TRUE(g_->sign_with(mine.c_str()));
        ASSERT_TRUE(g_->export_process(tree.root)) << ghost_error();
        ASSERT_TRUE(g_->signed_by((other + ".pub").c_str()));
        const auto refused = g_->import_process();
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.failure().code, EPERM) << text(refused.failure());
        EXPECT_NE(refused.failure().text.find("signed by another"), std::string::npos);
        for (const char* key : {static_cast<const char*>(nullptr), mine.c_str()}) {
            ASSERT_TRUE(g_->signed_by(key));
            Program copy;
            copy.import(*g_);
            EXPECT_EQ(copy.ask(), sum);
            copy.end();
        }
        ASSERT_TRUE(g_->sign_with(nullptr));
        ASSERT_TRUE(g_->export_process(tree.root)) << ghost_error();
        EXPECT_EQ(g_->import_process().failure().code, EPERM) << "it is not signed";
    }
    tree.end();
}

// Full, and two after it; what comes after the last one is in none.
class Chain : public Modes {
  protected:
    void take(Program& tree) {
        start_quiet(tree, "4096");
        ASSERT_TRUE(tree.ask());
        for (auto* one : {&full_, &middle_, &*g_}) {
            ASSERT_TRUE(one->mode(GHOST_MODE_CONCURRENT));
            ASSERT_TRUE(one->track(one != &*g_));
        }
        ASSERT_TRUE(full_.export_process(tree.root)) << ghost_error();
        ASSERT_TRUE(tree.ask("set 5 77\n"));
        ASSERT_TRUE(middle_.based_on(full_));
        ASSERT_TRUE(middle_.export_process(tree.root)) << ghost_error();
        sum_ = tree.ask("set 4000 78\n").value_or("nothing");
        ASSERT_TRUE(g_->based_on(middle_));
        ASSERT_TRUE(g_->export_process(tree.root)) << ghost_error();
        const auto later = tree.ask("set 6 79\n");
        ASSERT_TRUE(later);
        ASSERT_NE(*later, sum_);
        EXPECT_GT(full_.statistics().page_bytes, 4096 * page);
        EXPECT_LT(middle_.statistics().page_bytes, 1024 * page);
        EXPECT_LT(g_->statistics().page_bytes, 1024 * page);
        EXPECT_GT(g_->statistics().page_bytes, 0U);
        tree.end();
    }

    Ghost full_ = std::move(*Ghost::make()), middle_ = std::move(*Ghost::make());
    std::string sum_;
};

TEST_F(Chain, ComesBackFromFilesByTheirNames) {
    ASSERT_TRUE(full_.plug(path("full")));
    ASSERT_TRUE(middle_.plug("zstd:" + path("middle")));
    ASSERT_TRUE(g_->plug(path("last")));
    Program tree;
    take(tree);
    auto alone = Ghost::make();
    ASSERT_TRUE(alone->plug(path("last")));
    tree.import(*alone);
    EXPECT_EQ(tree.ask(), sum_);
    EXPECT_NE(tree.ask("set 9 80\n"), sum_);
}

TEST_F(Chain, ComesBackFromWhereverItsParentsAre) {
    auto memory = ghost::Buffer::make();
    ASSERT_TRUE(full_.plug(*memory));
    auto file = ghost::File::open(path("middle"));
    ASSERT_TRUE(middle_.plug(*file));
    ASSERT_TRUE(g_->plug(path("last")));
    Program tree;
    take(tree);
    tree.import(*g_);
    EXPECT_EQ(tree.ask(), sum_);
    // Without one of them nothing comes.
    ASSERT_TRUE(g_->based_on(full_));
    tree.end();
    EXPECT_EQ(g_->import_process().failure().code, EPERM) << ghost_error();
    ASSERT_TRUE(g_->based_on(nullptr));
    EXPECT_EQ(g_->import_process().failure().code, ENOENT) << ghost_error();
}

TEST_F(Chain, AFailureEndsTheTracking) {
    ASSERT_TRUE(full_.plug(path("full")));
    Program tree;
    start_quiet(tree, "16");
    ASSERT_TRUE(tree.ask());
    ASSERT_TRUE(full_.mode(GHOST_MODE_CONCURRENT));
    ASSERT_TRUE(full_.track(true));
    ASSERT_TRUE(full_.export_process(tree.root)) << ghost_error();
    ASSERT_TRUE(g_->mode(GHOST_MODE_CONCURRENT));
    ASSERT_TRUE(g_->based_on(full_));
    ASSERT_TRUE(g_->plug("/no/such/folder/a"));
    EXPECT_EQ(g_->export_process(tree.root).failure().code, ENOENT);
    ASSERT_TRUE(g_->plug("/dev/full"));
    EXPECT_EQ(g_->export_process(tree.root).failure().code, ENOSPC) << "nothing was read before";
    ASSERT_TRUE(g_->plug(path("a")));
    EXPECT_EQ(g_->export_process(tree.root).failure().code, EPERM);
    EXPECT_TRUE(tree.ask());
}

int say_no_once_begun(void*, uint64_t done, uint64_t) {
    return done > 0 ? 1 : 0;
}

TEST_F(Modes, ACancelledExportLeavesNothing) {
    Program tree;
    start_quiet(tree, "8192");
    const auto sum = tree.ask();
    ASSERT_TRUE(sum);
    ASSERT_TRUE(g_->on_progress(say_no_once_begun, nullptr));
    for (const auto mode : {GHOST_MODE_STOP, GHOST_MODE_CONCURRENT}) {
        auto file = ghost::File::open(path("a"));
        ASSERT_TRUE(g_->plug(*file));
        ASSERT_TRUE(g_->mode(mode));
        ASSERT_TRUE(g_->then(GHOST_THEN_KILL));
        EXPECT_EQ(g_->export_process(tree.root).failure().code, ECANCELED) << ghost_error();
        EXPECT_EQ(g_->statistics().outcome, GHOST_OUTCOME_STAYED);
        EXPECT_TRUE(file->close()) << "an incomplete ghost gets no name";
        EXPECT_FALSE(std::filesystem::exists(path("a")));
        EXPECT_EQ(tree.ask(), sum);
    }
}

TEST_F(Modes, ACancelledImportLeavesNothing) {
    Program tree;
    start_quiet(tree, "8192");
    const auto sum = tree.ask();
    ASSERT_TRUE(sum);
    ASSERT_TRUE(g_->plug(path("a")));
    ASSERT_TRUE(g_->then(GHOST_THEN_KILL));
    ASSERT_TRUE(g_->export_process(tree.root)) << ghost_error();
    tree.ended();
    // In the middle of it.
    int calls = 0;
    ASSERT_TRUE(
        g_->on_progress([](void* argument, uint64_t,
                           uint64_t) { return ++*static_cast<int*>(argument) >= 1 ? 1 : 0; },
                        &calls));
    const auto made = tree.try_with_new_ends([&] { return g_->import_process(); });
    EXPECT_EQ(made.failure().code, ECANCELED) << text(made.failure());
    EXPECT_GT(calls, 0);
    ASSERT_TRUE(g_->on_progress(nullptr, nullptr));
    tree.import(*g_);
    EXPECT_EQ(tree.ask(), sum);
}

TEST_F(Modes, AnImportThatWaitsForItsSourceIsCancelledAtOnce) {
    const uint16_t port = free_port();
    ASSERT_TRUE(g_->plug_network("", "of this test", port));
    for (const auto mode : {GHOST_MODE_STOP, GHOST_MODE_LIVE}) {
        ASSERT_TRUE(g_->mode(mode));
        std::atomic<bool> over{false};
        // Whenever it comes: before the call nothing is cancelled.
        std::thread canceller([&] {
            while (!over) {
                g_->cancel();
                usleep(1000);
            }
        });
        const int64_t begin = now_ms();
        EXPECT_EQ(g_->import_process().failure().code, ECANCELED) << ghost_error();
        EXPECT_LT(now_ms() - begin, 30'000) << "it waited for its source";
        over = true;
        canceller.join();
    }
}

// The target goes away with half of the ghost.
TEST_F(Modes, AnExportThatLosesItsTargetLeavesTheOriginal) {
    Program tree;
    start_quiet(tree, "8192");
    const auto sum = tree.ask();
    ASSERT_TRUE(sum);
    const uint16_t port = free_port();
    ASSERT_TRUE(g_->plug_network("localhost", "of this test", port));
    for (const auto mode : {GHOST_MODE_STOP, GHOST_MODE_CONCURRENT}) {
        ASSERT_TRUE(g_->mode(mode));
        ASSERT_TRUE(g_->then(GHOST_THEN_KILL));
        std::thread target([&] {
            auto here = ghost::Connection::wait("of this test", port);
            std::vector<char> half(8 << 20);
            ASSERT_TRUE(here);
            EXPECT_EQ(*here->read(half.data(), half.size()), half.size());
        });
        int code = ECONNREFUSED;
        for (int tries = 0; code == ECONNREFUSED && tries < 500; tries++) {
            code = g_->export_process(tree.root).failure().code;
            if (code == ECONNREFUSED) usleep(10000);
        }
        target.join();
        EXPECT_TRUE(code == EPIPE || code == ECONNRESET) << ghost_error();
        EXPECT_EQ(g_->statistics().outcome, GHOST_OUTCOME_STAYED);
        EXPECT_EQ(tree.ask(), sum);
    }
}

// Whoever exports is killed in the middle of it.
TEST_F(Modes, TheDeathOfTheExporterLeavesTheOriginal) {
    Program tree;
    start_quiet(tree, "8192");
    const auto sum = tree.ask();
    ASSERT_TRUE(sum);
    const pid_t exporter = fork();
    if (exporter == 0) {
        auto g = Ghost::make();
        const bool good =
            g->plug(path("a")) &&
            g->on_progress([](void*, uint64_t done,
                              uint64_t) { return done > 0 ? kill(getpid(), SIGKILL) : 0; },
                           nullptr);
        if (good && !g->export_process(tree.root)) _exit(1);
        _exit(2);
    }
    int status = 0;
    ASSERT_EQ(waitpid(exporter, &status, 0), exporter);
    EXPECT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
    EXPECT_EQ(tree.ask(), sum);
    EXPECT_FALSE(std::filesystem::exists(path("a")));
}

// Migrations; the source's end here, the target's in a thread or a process of its own.
class Migrations : public Modes, public ::testing::WithParamInterface<ghost_mode> {
  protected:
    void SetUp() override {
        Modes::SetUp();
        if (IsSkipped()) return;
        const auto file = path("beats");
        const int fd = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        ASSERT_EQ(ftruncate(fd, sizeof(Beats)), 0);
        beats_ = static_cast<Beats*>(
            mmap(nullptr, sizeof(Beats), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        close(fd);
        ASSERT_NE(beats_, MAP_FAILED);
        const api_test::Stdio none(-1, -1);
        auto started =
            ghost::start_process({"tests/process/live_subject", "init", "32", "2", "4", file});
        ASSERT_TRUE(started) << text(started.failure());
        tree_.root = *started;
        ASSERT_TRUE(becomes([&] { return beats_->ready != 0; }));
        ASSERT_TRUE(g_->plug_network("localhost", "of this test", port_));
        ASSERT_TRUE(g_->mode(GetParam()));
        ASSERT_TRUE(g_->then(GHOST_THEN_KILL));
    }
    void TearDown() override {
        tree_.end();
        if (beats_ != nullptr) munmap(beats_, sizeof(Beats));
        Modes::TearDown();
    }

    // It runs, and everything it has ever written is there.
    void expect_whole() const {
        const uint64_t before = beats_->count;
        EXPECT_TRUE(becomes([&] { return beats_->count > before + 20; })) << "it does not run";
        beats_->answer = ~uint64_t{0};
        beats_->ask = Ask::check;
        EXPECT_TRUE(becomes([&] { return beats_->ask == Ask::nothing; })) << "it does not answer";
        EXPECT_EQ(beats_->answer, 0U);
    }
    // The target may not listen yet.
    int export_code() {
        int code = ECONNREFUSED;
        for (int tries = 0; code == ECONNREFUSED && tries < 1000; tries++) {
            code = g_->export_process(tree_.root).failure().code;
            if (code == ECONNREFUSED) usleep(10000);
        }
        return code;
    }
    Ghost target() const {
        auto made = Ghost::make();
        EXPECT_TRUE(made->plug_network("", "of this test", port_));
        EXPECT_TRUE(made->mode(GetParam()));
        return std::move(*made);
    }

    const uint16_t port_ = free_port();
    Beats* beats_ = nullptr;
    Program tree_;
};

TEST_P(Migrations, GoesOnWhole) {
    auto there = target();
    pid_t made = -1;
    int code = ECANCELED;
    std::string ours, why;
    // Who gets no processor may be too slow for each other; then nothing has been.
    for (int tries = 0; code != 0 && tries < 5; tries++) {
        if (tries > 0) expect_whole();
        const api_test::Stdio none(-1, -1);
        std::thread importer([&] {
            auto got = there.import_process();
            made = got ? *got : -1;
            if (!got) why = text(got.failure());
        });
        code = export_code();
        ours = ghost_error();
        if (code != 0) there.cancel();
        importer.join();
        if (code != 0) {
            ASSERT_EQ(g_->statistics().outcome, GHOST_OUTCOME_STAYED) << ours << "; " << why;
        }
    }
    ASSERT_EQ(code, 0) << ours << "; " << why;
    ASSERT_GT(made, 0) << why;
    const auto figures = g_->statistics();
    EXPECT_EQ(figures.outcome, GHOST_OUTCOME_DONE);
    EXPECT_GT(figures.page_bytes, 16U << 20);
    EXPECT_LT(figures.stopped_us, figures.total_us);
    EXPECT_EQ(figures.rounds > 0, GetParam() != GHOST_MODE_LAZY);
    if (GetParam() == GHOST_MODE_LAZY) {
        EXPECT_GT(figures.deferred_bytes, 16U << 20);
    }
    if (GetParam() == GHOST_MODE_LIVE) {
        EXPECT_EQ(figures.deferred_bytes, 0U);
    }
    tree_.ended();
    tree_.root = made;
    expect_whole();
}

// The target cancels the source's end once it makes the process.
TEST_P(Migrations, ACancelledOneLeavesTheOriginal) {
    auto there = target();
    ASSERT_TRUE(there.on_progress(
        [](void* source, uint64_t, uint64_t) {
            ghost_cancel(static_cast<ghost_object*>(source));
            return 0;
        },
        g_->get()));
    bool failed = false;
    {
        const api_test::Stdio none(-1, -1);
        std::thread importer([&] { failed = !there.import_process(); });
        EXPECT_EQ(export_code(), ECANCELED) << ghost_error();
        importer.join();
    }
    EXPECT_TRUE(failed);
    EXPECT_EQ(g_->statistics().outcome, GHOST_OUTCOME_STAYED);
    expect_whole();
}

TEST_P(Migrations, ACancelledImportLeavesTheOriginal) {
    auto there = target();
    ASSERT_TRUE(there.on_progress([](void*, uint64_t, uint64_t) { return 1; }, nullptr));
    int why = 0;
    {
        const api_test::Stdio none(-1, -1);
        std::thread importer([&] { why = there.import_process().failure().code; });
        EXPECT_NE(export_code(), 0);
        importer.join();
    }
    EXPECT_EQ(why, ECANCELED);
    EXPECT_EQ(g_->statistics().outcome, GHOST_OUTCOME_STAYED);
    expect_whole();
}

TEST_P(Migrations, ALostTargetLeavesTheOriginal) {
    const pid_t importer = fork();
    if (importer == 0) {
        auto there = target();
        const api_test::Stdio none(-1, -1);
        const auto good = there.on_progress(
            [](void*, uint64_t, uint64_t) { return kill(getpid(), SIGKILL); }, nullptr);
        if (good && there.import_process()) _exit(1);
        _exit(2);
    }
    EXPECT_NE(export_code(), 0);
    EXPECT_EQ(g_->statistics().outcome, GHOST_OUTCOME_STAYED);
    int status = 0;
    ASSERT_EQ(waitpid(importer, &status, 0), importer);
    EXPECT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
    expect_whole();
}

std::string name_of(const ::testing::TestParamInfo<ghost_mode>& info) {
    if (info.param == GHOST_MODE_LIVE) return "Live";
    return info.param == GHOST_MODE_LAZY ? "Lazy" : "Hybrid";
}

INSTANTIATE_TEST_SUITE_P(All, Migrations,
                         ::testing::Values(GHOST_MODE_LIVE, GHOST_MODE_LAZY, GHOST_MODE_HYBRID),
                         name_of);

}  // namespace

int main(int argc, char** argv) {
    if (argc == 4 && std::strcmp(argv[1], "subject") == 0)
        return be_subject(std::strtoul(argv[2], nullptr, 10));
    ::testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
