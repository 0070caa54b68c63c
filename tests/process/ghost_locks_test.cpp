// SPDX-License-Identifier: BSD-3-Clause
// Exclusive locks of files go with the tree that has them, and nobody else gets one on the way; who
// has a file by then is named, and the tree goes on where it was.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <thread>

#include "base/log.hpp"
#include "ghost-core/engine/live_link.hpp"
#include "ghost-core/engine/lock_handover.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/resource/memory.hpp"
#include "tests/process/ghost_tree.hpp"

namespace ghost::core::test {
namespace {

const std::string secret = "0123456789abcdef";

// How the tree opens its file, and locks it.
struct Way {
    const char* name;
    const char* mode;
    const char* call;
};
constexpr Way ways[] = {
    {"flock", "r+", "fcntl.flock(f, fcntl.LOCK_EX)"},
    {"fcntl", "r+", "fcntl.lockf(f, fcntl.LOCK_EX)"},
    {"ofd", "r+", "fcntl.fcntl(f, 37, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0))"},
    {"range", "r+", "fcntl.lockf(f, fcntl.LOCK_EX, 1, 1)"},
    {"write_only", "a", "fcntl.lockf(f, fcntl.LOCK_EX)"}};

// A way between source and target on which somebody sees what is said.
class Overheard : public Resource {
  public:
    Overheard(Resource& inner, LiveMessageType word, std::function<void()> then)
        : inner_(inner), word_(word), then_(std::move(then)) {}
    ResourceClass class_id() const override { return inner_.class_id(); }
    Status init() override { return inner_.init(); }
    Status write(const void* data, size_t size) override { return inner_.write(data, size); }
    Status write_gather(iovec* pieces, size_t count) override {
        Head head;
        if (pieces[0].iov_len == sizeof head) {
            std::memcpy(&head, pieces[0].iov_base, sizeof head);
            if (head.type == static_cast<uint32_t>(word_)) then_();
        }
        return inner_.write_gather(pieces, count);
    }
    Result<size_t> read(void* data, size_t size) override { return inner_.read(data, size); }
    Status finalize() override { return inner_.finalize(); }
    void interrupt() override { inner_.interrupt(); }

  private:
    Resource& inner_;
    LiveMessageType word_;
    std::function<void()> then_;
};

class GhostLocks : public ::testing::Test {
  protected:
    void SetUp() override {
        if (const auto reason = skip_reason(); !reason.empty()) GTEST_SKIP() << reason;
        log::setup("ghost_locks_test", log::level_from_environment());
    }

    void start(const Way& way) {
        way_ = way;
        const auto program = fmt::format(
            "import fcntl, os, struct, sys\nos.setsid()\nf = open('{}', '{}')\n{}\nprint('has it', "
            "flush=True)\n"
            "for line in sys.stdin: print('goes on', flush=True)\n",
            file(), way.mode, way.call);
        ASSERT_TRUE(Fd(::open(file().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)).valid());
        source_ = Tree::start_program("/usr/bin/python3", {"-c", program});
        ASSERT_EQ(source_->listen(10000), "has it");
    }

    std::string file() const { return files_.path() + "/file"; }
    bool is_flock() const { return std::string(way_.name) == "flock"; }
    // As somebody else would have it; nothing where he cannot.
    Fd lock(bool exclusive) const {
        Fd out(::open(file().c_str(), O_RDWR | O_CLOEXEC));
        struct flock whole {};
        whole.l_type = exclusive ? F_WRLCK : F_RDLCK;
        const int got = is_flock() ? ::flock(out.get(), (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB)
                                   : ::fcntl(out.get(), F_OFD_SETLK, &whole);
        if (got != 0) out.reset();
        return out;
    }
    bool is_locked() const { return !lock(false).valid(); }

    // `then`: at the source, when it has said a word.
    void move(LiveMessageType word = LiveMessageType::ready, std::function<void()> then = {}) {
        auto link = connect(secret);
        ASSERT_TRUE(link.source && link.target);
        Overheard out(*link.source, word, std::move(then));
        std::thread exporter([&] {
            auto request = request_for<ExportRequest>(*source_, source_folder_);
            request.ghosts = Ghosts::move;
            sent_ = export_tree(request, out);
            if (!sent_) link.source->interrupt();
        });
        held_ = import(*link.target);
        if (!held_) link.target->interrupt();
        exporter.join();
    }
    Result<HeldTree> import(Resource& in) {
        auto importer = Importer::open(in);
        if (!importer) return importer.error();
        return hold_in(target_folder_, *importer, target_);
    }

    WorkFolder files_{"/tmp"}, source_folder_, target_folder_;
    Way way_{};
    std::unique_ptr<Tree> source_;
    Tree target_;
    Result<ExportStats> sent_ = make_error(Code::internal, "not run");
    Result<HeldTree> held_ = make_error(Code::internal, "not run");
};

class EveryLock : public GhostLocks, public ::testing::WithParamInterface<Way> {};

TEST_P(EveryLock, IsTheTargetsWhenItIsHeld) {
    start(GetParam());
    ASSERT_TRUE(is_locked());
    move();
    ASSERT_TRUE(sent_.ok()) << sent_.error().message();
    ASSERT_TRUE(held_.ok()) << held_.error().message();
    EXPECT_TRUE(is_locked());
    source_->end();
    EXPECT_TRUE(is_locked());
    ASSERT_TRUE(release_tree(*held_).ok());
    EXPECT_EQ(target_.ask(5000, "line\n"), "goes on");
    EXPECT_TRUE(is_locked());
    target_.end();
    EXPECT_FALSE(is_locked());
}

TEST_P(EveryLock, IsTakenBackWhereTheMoveIsAbandoned) {
    start(GetParam());
    move();
    ASSERT_TRUE(sent_.ok()) << sent_.error().message();
    ASSERT_TRUE(held_.ok()) << held_.error().message();
    destroy_tree(*held_);
    target_.root = 0;
    EXPECT_FALSE(is_locked());
    ASSERT_TRUE(take_back(source_->root, sent_->given).ok());
    EXPECT_TRUE(is_locked());
    ASSERT_TRUE(resume_tree(source_->root).ok());
    EXPECT_EQ(source_->ask(5000, "line\n"), "goes on");
    EXPECT_TRUE(is_locked());
}

// Whoever is told to take it cannot, and whoever had it has it again.
TEST_P(EveryLock, IsTakenBackWhereSomebodyHasComeBetween) {
    start(GetParam());
    Fd theirs;
    std::thread gives_back;
    move(LiveMessageType::lowered, [&] {
        theirs = lock(false);
        gives_back = std::thread([&] {
            usleep(500'000);
            theirs.reset();
        });
    });
    ASSERT_TRUE(gives_back.joinable());
    gives_back.join();
    ASSERT_FALSE(sent_.ok());
    EXPECT_NE(sent_.error().message().find(file() + ": somebody else has locked it"),
              std::string::npos)
        << sent_.error().message();
    EXPECT_FALSE(held_.ok());
    EXPECT_EQ(source_->ask(5000, "line\n"), "goes on");
    EXPECT_TRUE(is_locked());
}

INSTANTIATE_TEST_SUITE_P(Way, EveryLock, ::testing::ValuesIn(ways),
                         [](const auto& info) { return std::string(info.param.name); });

// Whoever has come between is waited for, for so long only; then it is said.
TEST_F(GhostLocks, ThatAreLostAreSaidToBe) {
    start(ways[0]);
    Fd theirs;
    move(LiveMessageType::lowered, [&] { theirs = lock(false); });
    ASSERT_TRUE(theirs.valid());
    ASSERT_FALSE(sent_.ok());
    EXPECT_NE(sent_.error().message().find("goes on without its lock: " + file()),
              std::string::npos)
        << sent_.error().message();
    EXPECT_EQ(source_->ask(5000, "line\n"), "goes on");
}

// No other process can have an exclusive one at any moment of a move.
TEST_F(GhostLocks, AreNeverFree) {
    for (const auto& way : {ways[0], ways[1], ways[2]}) {
        start(way);
        std::atomic<bool> stop = false;
        int got = 0;
        std::thread rival([&] {
            while (!stop) got += lock(true).valid() ? 1 : 0;
        });
        move();
        stop = true;
        rival.join();
        ASSERT_TRUE(held_.ok()) << held_.error().message();
        EXPECT_EQ(got, 0) << way.name;
        source_->end();
        target_.end();
    }
}

// A tree is not made without them, and nothing waits for whoever has them.
TEST_F(GhostLocks, OfAKeptGhostAreSomebodyElsesByNow) {
    for (const auto& way : {ways[0], ways[1]}) {
        start(way);
        MemoryResource ghost;
        auto made = export_tree(request_for<ExportRequest>(*source_, source_folder_), ghost);
        ASSERT_TRUE(made.ok()) << made.error().message();
        source_->end();
        const int64_t begin = monotonic_us();
        Fd theirs = lock(false);
        ASSERT_TRUE(theirs.valid());
        held_ = import(ghost);
        ASSERT_FALSE(held_.ok());
        EXPECT_NE(held_.error().message().find(file() + ": somebody else has locked it"),
                  std::string::npos)
            << held_.error().message();
        EXPECT_LT(monotonic_us() - begin, 10'000'000);
        theirs.reset();
    }
}

}  // namespace
}  // namespace ghost::core::test
