// SPDX-License-Identifier: BSD-3-Clause
// Trees really leave and enter: through a TCP connection on the loopback device, on this machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <memory>
#include <regex>
#include <set>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <thread>

#include "base/log.hpp"
#include "base/proc.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/engine/preflight.hpp"
#include "ghost-core/criu/criu.hpp"
#include "ghost-core/criu/preflight.hpp"
#include "ghost-core/criu/skeleton_store.hpp"
#include "tests/contract/faulty_resource.hpp"
#include "ghost-core/resource/memory.hpp"
#include "ghost-core/resource/network.hpp"
#include "tests/process/ghost_tree.hpp"
#include "tests/rounds.hpp"

namespace ghost::core::test {
namespace {

const std::string secret = "0123456789abcdef";

class Migration : public ::testing::Test {
  protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "needs root";
        static const Status warm = [] {
            WorkFolder folder;
            return warm_up({criu_program(), folder.path(), 20});
        }();
        if (!warm.ok()) GTEST_SKIP() << warm.error().message();
        log::setup("ghost_migration_test", log::level_from_environment());
    }

    ExportRequest request(const Tree& tree) const {
        return request_for<ExportRequest>(tree, source_folder_);
    }

    // Imports into a new tree, which is held.
    Result<HeldTree> import(Resource& in, Tree& tree) const {
        auto importer = Importer::open(in);
        if (!importer) return importer.error();
        return hold_in(target_folder_, *importer, tree);
    }

    void expect_clean() const {
        for (const auto* folder : {&source_folder_, &target_folder_})
            for (const auto& entry : std::filesystem::directory_iterator(folder->path()))
                EXPECT_EQ(entry.path().filename(), "criu.log");
        std::ifstream in(fmt::format("/proc/self/task/{}/children", gettid()));
        int children = 0;
        for (pid_t pid = 0; in >> pid;) children++;
        EXPECT_LE(children, 2);
    }

    // No thread is left in the scheduling class that a move gives it.
    static void expect_ordinary(pid_t root) {
        const auto tasks = list_tree(root);
        ASSERT_TRUE(tasks.ok());
        for (const auto& task : *tasks)
            for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid)))
                EXPECT_EQ(sched_getscheduler(tid), SCHED_OTHER);
    }

    struct Moved {
        std::unique_ptr<Tree> source, target = std::make_unique<Tree>();
        Result<ExportStats> sent = make_error(Code::internal, "not run");
        Result<HeldTree> held = make_error(Code::internal, "not run");
        int64_t freeze_to_held_us = 0, check_us = 0;
    };
    Moved move(int megabytes) {
        Moved out;
        out.source = Tree::start(megabytes);
        EXPECT_GT(out.source->healthy(), 0U);
        const int64_t look = monotonic_us();
        EXPECT_TRUE(check_movable(out.source->root, "rank 0", out.source->keys()).ok());
        out.check_us = monotonic_us() - look;
        auto link = connect(secret);
        if (!link.source || !link.target) return out;
        int64_t begin = 0;
        std::thread exporter([&] {
            begin = monotonic_us();
            out.sent = export_tree(request(*out.source), *link.source);
        });
        out.held = import(*link.target, *out.target);
        out.freeze_to_held_us = monotonic_us();
        exporter.join();
        out.freeze_to_held_us -= begin;
        return out;
    }

    WorkFolder source_folder_, target_folder_;
};

TEST_F(Migration, HeldTreeRunsComplete) {
    auto moved = move(12);
    ASSERT_TRUE(moved.sent.ok()) << moved.sent.error().message();
    ASSERT_TRUE(moved.held.ok()) << moved.held.error().message();
    EXPECT_GT(moved.sent->page_bytes, 9U << 20);
    EXPECT_EQ(moved.sent->page_bytes, moved.held->bytes);
    // Both are frozen: neither answers.
    EXPECT_FALSE(moved.source->ask(200));
    EXPECT_FALSE(moved.target->ask(200));
    moved.source->end();
    ASSERT_TRUE(release_tree(*moved.held).ok());
    expect_ordinary(moved.target->root);
    const auto first = moved.target->listen(5000);  // the question asked while it was held
    ASSERT_TRUE(first);
    EXPECT_TRUE(first->starts_with("beats ")) << *first;
    const auto before = moved.target->healthy();
    EXPECT_GT(moved.target->healthy(), before);
    expect_clean();
}

TEST_F(Migration, SourceGoesOnWhenTheMoveIsAbandoned) {
    auto moved = move(12);
    ASSERT_TRUE(moved.held.ok()) << moved.held.error().message();
    destroy_tree(*moved.held);
    moved.target->root = 0;
    EXPECT_EQ(moved.held->root, 0);
    ASSERT_TRUE(resume_tree(moved.source->root).ok());
    expect_ordinary(moved.source->root);
    const auto before = moved.source->healthy();
    EXPECT_GT(moved.source->healthy(), before);
    expect_clean();
}

TEST_F(Migration, MovesAgainAndAgain) {
    auto tree = Tree::start(6);
    uint64_t before = tree->healthy();
    for (int i = 0; i < 5; i++) {
        MemoryResource ghost;
        auto sent = export_tree(request(*tree), ghost);
        ASSERT_TRUE(sent.ok()) << sent.error().message();
        tree->end();
        auto next = std::make_unique<Tree>();
        auto held = import(ghost, *next);
        ASSERT_TRUE(held.ok()) << held.error().message();
        ASSERT_TRUE(release_tree(*held).ok());
        tree = std::move(next);
        const auto now = tree->healthy();
        EXPECT_GT(now, before);
        before = now;
    }
}

// Descriptors and mappings of every process, as far as they do not change by themselves.
std::string belongings(pid_t root) {
    std::string out;
    const auto tasks = list_tree(root);
    if (!tasks) return out;
    for (const auto& task : *tasks) {
        auto files = numbers_in(fmt::format("/proc/{}/fd", task.pid));
        std::sort(files.begin(), files.end());
        out += fmt::format("{}: {}\n", task.inner, fmt::join(files, " "));
        std::ifstream in(fmt::format("/proc/{}/maps", task.pid));
        for (std::string line; std::getline(in, line);) out += line.substr(0, 35) + "\n";
    }
    return out;
}

// Processes whose current folder this is: criu and what it has started.
int working_in(const std::string& folder) {
    int count = 0;
    for (const pid_t pid : numbers_in("/proc")) {
        std::error_code ignored;
        if (std::filesystem::read_symlink(fmt::format("/proc/{}/cwd", pid), ignored) == folder)
            count++;
    }
    return count;
}

// Waits for their end; how many are left after five seconds.
int still_working_in(const std::string& folder) {
    const int64_t limit = monotonic_us() + 5'000'000;
    int left = working_in(folder);
    for (; left > 0 && monotonic_us() < limit; left = working_in(folder)) usleep(1000);
    return left;
}

// criu killed by somebody else at any moment of the dump, GHOST_TEST_KILLS (40) of them; the
// source goes on, with nothing of criu's left in it.
TEST_F(Migration, SourceLivesWhenCriuIsKilledInTheDump) {
    if (!survives_kill(criu_program())) GTEST_SKIP() << "criu without our change";
    const auto kills = static_cast<int>(ghost::test::rounds("GHOST_TEST_KILLS", 40, 400));
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    const auto before = belongings(tree->root);
    int killed = 0;
    for (int i = 0; i < kills; i++) {
        const int after_us = i * 7919 % 20000;
        MemoryResource ghost;
        auto sent = [&] {
            CriuKiller killer(after_us);
            return export_tree(request(*tree), ghost);
        }();
        if (sent.ok())
            ASSERT_TRUE(resume_tree(tree->root).ok());  // criu was through before
        else
            killed++;
        ASSERT_GT(tree->healthy(), 0U) << "killed after " << after_us << " us";
        ASSERT_TRUE(belongings(tree->root) == before) << "killed after " << after_us << " us:\n"
                                                      << belongings(tree->root) << before;
    }
    std::printf("%d of %d dumps were killed\n", killed, kills);
    EXPECT_EQ(working_in(source_folder_.path()), 0);
    expect_clean();
}

// A criu that waits costs the tree nothing, whatever that does meanwhile; after a second it is
// looked at again before it is used.
TEST_F(Migration, CriuWaitsAheadOfTheMove) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    for (const int waits_ms : {0, 200, 1200}) {
        auto ahead = prepare_export(request(*tree));
        ASSERT_TRUE(ahead.ok()) << ahead.error().message();
        usleep(static_cast<useconds_t>(waits_ms) * 1000);
        ASSERT_EQ(tree->ask(5000, "advise\n"), "advised");
        ASSERT_GT(tree->healthy(), 0U);
        MemoryResource ghost;
        auto sent = export_tree(request(*tree), ghost, std::move(*ahead));
        ASSERT_TRUE(sent.ok()) << sent.error().message();
        Tree target;
        auto held = import(ghost, target);
        ASSERT_TRUE(held.ok()) << held.error().message();
        ASSERT_TRUE(release_tree(*held).ok());
        EXPECT_GT(target.healthy(), 0U);
        target.end();
        ASSERT_TRUE(resume_tree(tree->root).ok());
        ASSERT_GT(tree->healthy(), 0U);
    }
    const auto before = belongings(tree->root);
    for (int i = 0; i < 20; i++) {  // not used
        auto ahead = prepare_export(request(*tree));
        ASSERT_TRUE(ahead.ok()) << ahead.error().message();
        usleep(static_cast<useconds_t>(i * 997));
    }
    EXPECT_EQ(working_in(source_folder_.path()), 0);
    EXPECT_EQ(children_of(getpid()), std::vector<pid_t>{tree->root});
    ASSERT_TRUE(belongings(tree->root) == before);
    expect_clean();
}

TEST_F(Migration, DeathBeforeMoveLeavesTreeAlone) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    const auto before = belongings(tree->root);
    for (const int after_us : {0, 3000, 50000}) {  // criu
        auto ahead = prepare_export(request(*tree));
        ASSERT_TRUE(ahead.ok()) << ahead.error().message();
        usleep(static_cast<useconds_t>(after_us));
        for (const pid_t child : children_of(getpid()))
            if (child != tree->root) kill(child, SIGKILL);
        MemoryResource ghost;
        EXPECT_FALSE(export_tree(request(*tree), ghost, std::move(*ahead)).ok());
        ASSERT_GT(tree->healthy(), 0U);
    }
    for (const int after_us : {3000, 50000}) {  // whoever has started it
        const pid_t exporter = fork();
        if (exporter == 0) {
            auto ahead = prepare_export(request(*tree));
            pause();
        }
        usleep(static_cast<useconds_t>(after_us));
        kill(exporter, SIGKILL);
        waitpid(exporter, nullptr, 0);
        EXPECT_EQ(still_working_in(source_folder_.path()), 0)
            << "killed after " << after_us << " us";
        ASSERT_GT(tree->healthy(), 0U);
        unlink((source_folder_.path() + "/streamer-capture.sock").c_str());
    }
    ASSERT_TRUE(belongings(tree->root) == before);
    expect_clean();
}

// The exporting process itself is killed: criu notices, puts the tasks right and ends.
TEST_F(Migration, SourceGoesOnWhenTheExporterIsKilled) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    const auto before = belongings(tree->root);
    for (int i = 0; i < 20; i++) {
        const int after_us = i * 7919 % 40000;
        const pid_t exporter = fork();
        if (exporter == 0) {
            MemoryResource ghost;
            if (!export_tree(request(*tree), ghost)) _exit(1);
            pause();
        }
        usleep(static_cast<useconds_t>(after_us));
        kill(exporter, SIGKILL);
        waitpid(exporter, nullptr, 0);
        // One that has not yet begun would stop the tree after it was resumed.
        ASSERT_EQ(still_working_in(source_folder_.path()), 0)
            << "killed after " << after_us << " us";
        ASSERT_TRUE(resume_tree(tree->root).ok());
        ASSERT_GT(tree->healthy(), 0U) << "killed after " << after_us << " us";
        const auto now = belongings(tree->root);
        ASSERT_TRUE(now == before) << "killed after " << after_us << " us:\n" << now << before;
        unlink((source_folder_.path() + "/streamer-capture.sock").c_str());
    }
}

TEST_F(Migration, CriuKilledInRestoreLeavesNothing) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    auto sent = export_tree(request(*tree), ghost);
    ASSERT_TRUE(sent.ok()) << sent.error().message();
    ASSERT_TRUE(resume_tree(tree->root).ok());
    for (const int after_us : {0, 5000, 10000, 20000, 30000, 40000}) {
        ghost.rewind();
        Tree target;
        CriuKiller killer(after_us);
        auto held = import(ghost, target);
        target.end();
        const auto left = children_of(getpid());
        EXPECT_EQ(left, std::vector<pid_t>{tree->root}) << "killed after " << after_us << " us";
    }
    EXPECT_GT(tree->healthy(), 0U);
}

// Files without a name that a tree has open, as /proc shows them, without " (deleted)".
std::set<std::string> unlinked_files(pid_t root) {
    std::set<std::string> out;
    const auto tasks = list_tree(root);
    EXPECT_TRUE(tasks.ok());
    std::error_code none;
    for (const auto& task : *tasks)
        for (const auto& entry :
             std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", task.pid), none)) {
            const std::string name = std::filesystem::read_symlink(entry, none);
            const size_t end = name.rfind(" (deleted)");
            if (name.starts_with('/') && end != std::string::npos) out.insert(name.substr(0, end));
        }
    return out;
}

// Files without a name are made anew under one for a moment, which a criu that is killed then
// leaves behind, and which must not grow from one restore to the next.
TEST_F(Migration, RemainsOfKilledRestoreAreHarmless) {
    std::vector<std::unique_ptr<Tree>> trees;
    trees.push_back(Tree::start(4));
    ASSERT_GT(trees.back()->healthy(), 0U);
    for (int turn = 0; turn < 3; turn++) {
        Tree& tree = *trees.back();
        const auto names = unlinked_files(tree.root);
        ASSERT_FALSE(names.empty());
        std::vector<std::string> left;
        for (const auto& name : names) {
            EXPECT_EQ(name.find(".cr."), name.rfind(".cr.")) << name;
            for (const char* id : {"1", "2", "3", "4"})
                left.push_back(fmt::format("{}.cr.{}.ghost", name, id));
        }
        for (const auto& name : left) ASSERT_TRUE(std::ofstream(name) << "left") << name;
        MemoryResource ghost;
        auto sent = export_tree(request(tree), ghost);
        ASSERT_TRUE(sent.ok()) << sent.error().message();
        tree.end();
        trees.push_back(std::make_unique<Tree>());
        auto held = import(ghost, *trees.back());
        for (const auto& name : left) EXPECT_TRUE(std::filesystem::remove(name)) << name;
        ASSERT_TRUE(held.ok()) << held.error().message();
        ASSERT_TRUE(release_tree(*held).ok());
        EXPECT_GT(trees.back()->healthy(), 0U);
    }
}

// Reads of a ghost, the last of which waits until criu has ended.
class LastPagesWait : public Resource {
  public:
    explicit LastPagesWait(const MemoryResource& ghost)
        : ghost_(ghost.share()), last_(ghost.bytes().size() - (uint64_t{1} << 20)) {}

    ResourceClass class_id() const override { return ghost_.class_id(); }
    Status init() override { return {}; }
    Status write(const void*, size_t) override { return make_error(Code::internal, "write"); }
    Result<size_t> read(void* data, size_t size) override {
        while (at_ < last_ && at_ + size > last_ && our_criu() != 0 && monotonic_us() < limit_)
            usleep(1000);
        waited_in_vain = waited_in_vain || monotonic_us() >= limit_;
        at_ += size;
        return ghost_.read(data, size);
    }
    Status finalize() override { return {}; }

    bool waited_in_vain = false;

  private:
    MemoryResource ghost_;
    const uint64_t last_;
    uint64_t at_ = 0;
    const int64_t limit_ = monotonic_us() + 10'000'000;
};

// What a task needs before it can be frozen (threads' storage) is not among the last pages.
TEST_F(Migration, TasksAreMadeBeforeTheLastPagesAreThere) {
    auto tree = Tree::start(12);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    auto sent = export_tree(request(*tree), ghost);
    ASSERT_TRUE(sent.ok()) << sent.error().message();
    LastPagesWait slow(ghost);
    Tree target;
    auto held = import(slow, target);
    ASSERT_TRUE(held.ok()) << held.error().message();
    EXPECT_FALSE(slow.waited_in_vain);
    ASSERT_TRUE(release_tree(*held).ok());
    EXPECT_GT(target.healthy(), 0U);
    target.end();
    ASSERT_TRUE(resume_tree(tree->root).ok());
    EXPECT_GT(tree->healthy(), 0U);
    expect_clean();
}

// So that a guard knows whom to end, whenever this process is killed.
TEST_F(Migration, RootIsToldWhileCriuMakesIt) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    auto sent = export_tree(request(*tree), ghost);
    ASSERT_TRUE(sent.ok()) << sent.error().message();
    auto importer = Importer::open(ghost);
    ASSERT_TRUE(importer.ok()) << importer.error().message();
    std::vector<pid_t> told;
    char state = 0;
    importer->tell_root([&](pid_t root) {
        EXPECT_NE(our_criu(), 0);
        if (const auto status = read_status(fmt::format("/proc/{}", root))) state = status->state;
        told.push_back(root);
    });
    Tree target;
    auto held = hold_in(target_folder_, *importer, target);
    ASSERT_TRUE(held.ok()) << held.error().message();
    EXPECT_EQ(told, std::vector<pid_t>{held->root});
    EXPECT_NE(state, 'T') << "it was made already";
    target.end();
    ASSERT_TRUE(resume_tree(tree->root).ok());
    EXPECT_GT(tree->healthy(), 0U);
    expect_clean();
}

TEST_F(Migration, InjectedFaultsOfCriuLeaveTheSourceRunning) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    for (const char* fault : {"1", "3", "5"}) {
        setenv("CRIU_FAULT", fault, 1);
        MemoryResource ghost;
        auto sent = export_tree(request(*tree), ghost);
        unsetenv("CRIU_FAULT");
        EXPECT_FALSE(sent.ok()) << fault;
        const auto before = tree->healthy();
        EXPECT_GT(tree->healthy(), before) << fault;
    }
    expect_clean();
}

TEST_F(Migration, InjectedFaultOfCriuLeavesNothingAtTheTarget) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    ASSERT_TRUE(export_tree(request(*tree), ghost).ok());
    ASSERT_TRUE(resume_tree(tree->root).ok());
    Tree target;
    setenv("CRIU_FAULT", "6", 1);  // FI_POST_RESTORE of criu: the tree exists, then it fails
    auto held = import(ghost, target);
    unsetenv("CRIU_FAULT");
    ASSERT_FALSE(held.ok());
    const auto said = held.error().message();
    EXPECT_NE(said.find("criu gave up for a reason"), std::string::npos) << said;
    EXPECT_EQ(said.find("Error ("), std::string::npos) << "criu's own words: " << said;
    EXPECT_EQ(children_of(getpid()), std::vector<pid_t>{tree->root});
    EXPECT_GT(tree->healthy(), 0U);
    expect_clean();
}

TEST_F(Migration, DamagedOrCutGhostIsNotHeld) {
    auto tree = Tree::start(4);
    ASSERT_GT(tree->healthy(), 0U);
    MemoryResource ghost;
    ASSERT_TRUE(export_tree(request(*tree), ghost).ok());
    ASSERT_TRUE(resume_tree(tree->root).ok());
    const uint64_t size = ghost.bytes().size();
    using Fault = FaultyResource::Fault;
    const std::pair<Fault, uint64_t> cases[] = {{Fault::flip_read, size - 20},
                                                {Fault::flip_read, size / 2},
                                                {Fault::end_read, size / 2},
                                                {Fault::end_read, size - 1},
                                                {Fault::fail_read, size / 3}};
    for (const auto& [fault, at] : cases) {
        ghost.rewind();
        FaultyResource wrong(ghost, fault, at);
        Tree target;
        EXPECT_FALSE(import(wrong, target).ok()) << at;
        EXPECT_EQ(children_of(getpid()), std::vector<pid_t>{tree->root}) << at;
    }
    for (const uint64_t at : {size / 3, size / 2, size - (uint64_t{1} << 20)}) {
        auto bytes = ghost.bytes();
        bytes[at] ^= 1;
        MemoryResource wrong(bytes);  // its pages are used where they are
        Tree target;
        auto held = import(wrong, target);
        ASSERT_FALSE(held.ok()) << at;
        EXPECT_EQ(held.error().code, Code::corrupt) << held.error().message();
        EXPECT_NE(held.error().message().find("damaged at byte"), std::string::npos)
            << held.error().message();
        EXPECT_EQ(children_of(getpid()), std::vector<pid_t>{tree->root}) << at;
    }
    EXPECT_GT(tree->healthy(), 0U);
    expect_clean();
}

TEST_F(Migration, SourceGoesOnWhenTheConnectionIsCut) {
    auto tree = Tree::start(24);
    ASSERT_GT(tree->healthy(), 0U);
    for (const uint64_t at : {uint64_t{100}, uint64_t{200000}, uint64_t{8} << 20}) {
        auto link = connect(secret);
        FaultyResource cut(*link.source, FaultyResource::Fault::fail_write, at);
        Tree target;
        std::thread exporter([&] {
            EXPECT_FALSE(export_tree(request(*tree), cut).ok());
            link.source.reset();
        });
        EXPECT_FALSE(import(*link.target, target).ok());
        exporter.join();
        EXPECT_EQ(children_of(getpid()), std::vector<pid_t>{tree->root}) << at;
        const auto before = tree->healthy();
        EXPECT_GT(tree->healthy(), before) << at;
    }
    expect_clean();
}

TEST_F(Migration, PreflightNamesWhatCannotMove) {
    auto tree = Tree::start(1);
    ASSERT_GT(tree->healthy(), 0U);
    auto lines = check_movable(tree->root, "rank 1", tree->keys());
    ASSERT_TRUE(lines.ok());
    EXPECT_TRUE(lines->empty()) << lines->front();
    // This process itself has the other end of a connection, and a connection, as examples.
    auto link = connect(secret);
    const pid_t child = fork();
    if (child == 0) {
        link.target.reset();
        pause();
        _exit(0);
    }
    lines = check_movable(child, "rank 1", {});
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    ASSERT_TRUE(lines.ok());
    const bool named = std::any_of(lines->begin(), lines->end(), [](const std::string& line) {
        return line.find("socket tcp ") != std::string::npos &&
               line.find("cannot move: its other end is outside;") != std::string::npos;
    });
    EXPECT_TRUE(named);
}

// As between fork() and the child's first steps, and between vfork() and exec.
TEST_F(Migration, PreflightWaitsForNewChildToCloseInheritedSockets) {
    auto link = connect(secret);
    const pid_t child = fork();
    if (child == 0) {
        usleep(100'000);
        link.target.reset();
        link.source.reset();
        pause();
        _exit(0);
    }
    auto lines = check_movable(child, "rank 1", {});
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    ASSERT_TRUE(lines.ok());
    EXPECT_TRUE(lines->empty()) << lines->front();
}

// What check_movable() says of a process that did `open` before.
std::vector<std::string> said_of(const std::function<bool()>& open,
                                 const std::vector<std::string>& externals = {}) {
    auto ready = make_pipe();
    const pid_t child = fork();
    if (child == 0) {
        const char there = open() ? 'y' : 'n';
        if (write(ready.in.get(), &there, 1) == 1) pause();
        _exit(0);
    }
    char there = 'n';
    EXPECT_EQ(read(ready.out.get(), &there, 1), 1);
    auto lines = check_movable(child, "rank 1", externals);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    EXPECT_TRUE(lines.ok());
    if (there != 'y') return {"cannot be made here"};
    // which object of which process, why, and what to do
    for (const auto& line : *lines)
        EXPECT_TRUE(std::regex_match(line, std::regex("rank 1.*: .+ cannot move: .+; .+"))) << line;
    return lines.value();
}

bool says(const std::vector<std::string>& lines, const std::string& what) {
    return std::any_of(lines.begin(), lines.end(), [&what](const std::string& line) {
        return line.find(what) != std::string::npos;
    });
}

TEST_F(Migration, PreflightKnowsDevicesRingsAndUnixSockets) {
    const auto device = said_of([] { return ::open("/dev/kmsg", O_RDONLY) >= 0; });
    EXPECT_TRUE(says(device, "cannot be made here") || says(device, "it is a device of this node"))
        << fmt::format("{}", fmt::join(device, "\n"));
    EXPECT_FALSE(says(said_of([] { return ::open("/dev/urandom", O_RDONLY) >= 0; }), "urandom"));

    const auto ring = said_of([] {
        std::array<char, 120> parameters{};  // struct io_uring_params
        return syscall(SYS_io_uring_setup, 4, parameters.data()) >= 0;
    });
    EXPECT_TRUE(says(ring, "cannot be made here") || says(ring, "out of the kernel"))
        << fmt::format("{}", fmt::join(ring, "\n"));

    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const Fd kept(ends[0]), given(ends[1]);
    struct stat info {};
    fstat(given.get(), &info);
    const auto give_up = [&] { return ::close(kept.get()) == 0; };  // so that only one is inside
    const auto key = fmt::format("unix[{}]", info.st_ino);
    EXPECT_TRUE(says(said_of(give_up), "its other end is outside;"));
    EXPECT_FALSE(says(said_of(give_up, {key}), "socket unix"));
}

// Nobody has used them yet, so only their user and their age say whose they are.
TEST_F(Migration, PreflightKnowsObjectsOfTheNode) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const auto made = said_of([&] {
        const int ids[] = {msgget(IPC_PRIVATE, 0600), semget(IPC_PRIVATE, 1, 0600)};
        return write(ends[1], ids, sizeof ids) == sizeof ids;
    });
    int ids[2] = {-1, -1};
    EXPECT_EQ(read(ends[0], ids, sizeof ids), static_cast<ssize_t>(sizeof ids));
    for (const int end : ends) ::close(end);
    msgctl(ids[0], IPC_RMID, nullptr);
    semctl(ids[1], 0, IPC_RMID);
    const auto named = [&](const char* what, int id, char option) {
        return says(made, fmt::format("rank 1: {} {} (System V, key 0x00000000) cannot move: it "
                                      "belongs to the node; remove it first (ipcrm -{} {})",
                                      what, id, option, id));
    };
    EXPECT_TRUE(named("message queue", ids[0], 'q')) << fmt::format("{}", fmt::join(made, "\n"));
    EXPECT_TRUE(named("semaphore set", ids[1], 's')) << fmt::format("{}", fmt::join(made, "\n"));
}

TEST_F(Migration, PreflightKnowsNamesThatAreGone) {
    const auto folder = source_folder_.path();
    const auto path = folder + "/first", same = folder + "/second", sub = folder + "/sub";
    std::filesystem::create_directory(sub);
    const auto mapped = [&](const std::string& other) {
        return said_of([&] {
            const Fd file(::open(path.c_str(), O_RDWR | O_CREAT, 0600));
            if (!file || ::ftruncate(file.get(), 4096) != 0 ||
                ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file.get(), 0) == MAP_FAILED)
                return false;
            return ::link(path.c_str(), other.c_str()) == 0 && ::unlink(path.c_str()) == 0;
        });
    };
    const auto found = mapped(same);
    EXPECT_TRUE(found.empty()) << found.front();
    EXPECT_TRUE(says(mapped(sub + "/third"), "mapping " + path +
                                                 " (deleted) cannot move: its name has been "
                                                 "removed, and its other name is not in the same "
                                                 "folder"));
    std::filesystem::remove_all(sub);
    std::filesystem::remove(same);
    const auto other = fmt::format("/proc/{}/stat", getpid());
    EXPECT_TRUE(says(said_of([&] { return ::open(other.c_str(), O_RDONLY) >= 0; }),
                     fmt::format("{} cannot move: it is of process {}, which is outside the tree",
                                 other, getpid())));
    const auto entered = [&] { return ::chdir(fmt::format("/proc/{}", getppid()).c_str()) == 0; };
    EXPECT_TRUE(says(said_of(entered), "working folder /proc/"));
}

TEST_F(Migration, TargetIsAskedForDescriptorsAndForRoomOfRemovedFiles) {
    rlimit here{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &here), 0);
    const auto all = [](const Needs& needs) { return describe(check_needs(needs)); };
    EXPECT_EQ(all({.descriptors = 3, .removed = {{"/tmp", 4096}}}), "");
    EXPECT_NE(all({.removed = {{"/dev/shm/not/there", uint64_t{1} << 60}}})
                  .find("space in /dev/shm/not/there for files that have been removed: "),
              std::string::npos);
    const auto last = all({.descriptors = static_cast<int>(here.rlim_max - 1)});
    EXPECT_EQ(last.find("an import needs 64 free numbers") != std::string::npos,
              !may_raise_limits());
}

// What a removed file held may be more than fits into memory.
TEST_F(Migration, LargeFilesOfSkeletonsAreKeptWhole) {
    constexpr size_t piece = 1 << 20, pieces = 65;
    SkeletonStore store;
    std::string_view content;
    ASSERT_TRUE(store.open(0, "ghost-file-1.img"));
    for (size_t i = 0; i < pieces; i++)
        ASSERT_TRUE(store.data(0, std::string(piece, static_cast<char>('A' + i % 26))).ok());
    EXPECT_EQ(store.find("ghost-file-1.img", content), SkeletonStore::Found::not_yet);
    ASSERT_TRUE(store.close(0).ok());
    ASSERT_EQ(store.find("ghost-file-1.img", content), SkeletonStore::Found::yes);
    ASSERT_EQ(content.size(), piece * pieces);
    for (size_t at = 0; at < content.size(); at += piece / 2)
        ASSERT_EQ(content[at], static_cast<char>('A' + at / piece % 26)) << at;
    EXPECT_EQ(store.bytes(), piece * pieces);
}

// Outer pid of the process of the tree with this number inside; 0: none.
pid_t find_task(pid_t root, pid_t inner) {
    auto tasks = list_tree(root);
    for (const auto& task : tasks.value())
        if (task.inner == inner) return task.pid;
    return 0;
}

TEST_F(Migration, FindsTasksByTheirInnerNumbers) {
    auto tree = Tree::start(1);
    ASSERT_GT(tree->healthy(), 0U);
    EXPECT_EQ(find_task(tree->root, 1), tree->root);
    const pid_t app = find_task(tree->root, 2);
    ASSERT_NE(app, 0);
    auto thread = find_thread(tree->root, 3);
    ASSERT_TRUE(thread.ok());
    EXPECT_EQ(thread->pid, app);
    EXPECT_NE(thread->tid, app);
    EXPECT_EQ(find_task(tree->root, 4711), 0);
    EXPECT_EQ(find_thread(tree->root, 4711).error().code, Code::not_found);
}

// Prints medians; GHOST_TEST_MOVES of them (5), and 1 GiB too if GHOST_TEST_LARGE is set.
TEST_F(Migration, Times) {
    const auto repeat = ghost::test::rounds("GHOST_TEST_MOVES", 5, 50);
    std::vector<int> sizes = {10, 50};
    if (ghost::test::rounds("GHOST_TEST_LARGE", 0, 1) != 0) sizes.push_back(1024);
    for (const int megabytes : sizes) {
        std::vector<int64_t> whole, skeleton, pages, tree, filling, check;
        for (long long i = 0; i < repeat; i++) {
            auto moved = move(megabytes);
            ASSERT_TRUE(moved.sent.ok()) << moved.sent.error().message();
            ASSERT_TRUE(moved.held.ok()) << moved.held.error().message();
            moved.source->end();
            ASSERT_TRUE(release_tree(*moved.held).ok());
            EXPECT_GT(moved.target->healthy(), 0U);
            whole.push_back(moved.freeze_to_held_us);
            check.push_back(moved.check_us);
            skeleton.push_back(moved.sent->skeleton_us);
            pages.push_back(moved.sent->pages_us);
            tree.push_back(moved.held->skeleton_us);
            filling.push_back(moved.held->pages_us);
        }
        for (auto* of : {&whole, &skeleton, &pages, &tree, &filling, &check})
            std::sort(of->begin(), of->end());
        const auto median = [](const std::vector<int64_t>& of) {
            return static_cast<double>(of[of.size() / 2]) / 1e3;
        };
        std::printf(
            "%5d MB: call to held %.1f ms (%.1f to %.1f); source: skeleton %.1f, pages %.1f; "
            "target: tree %.1f after its skeleton, pages %.1f; preflight before %.1f ms\n",
            megabytes, median(whole), whole.front() / 1e3, whole.back() / 1e3, median(skeleton),
            median(pages), median(tree), median(filling), median(check));
    }
}

}  // namespace
}  // namespace ghost::core::test
