// SPDX-License-Identifier: BSD-3-Clause
// Trees are moved live, over a TCP connection on the loopback device, and check themselves.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <thread>

#include "base/log.hpp"
#include "base/proc.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/ptrace_session.hpp"
#include "ghost-core/resource/network.hpp"
#include "tests/process/live_tree.hpp"

namespace ghost::core::test {
namespace {

const std::string secret = "0123456789abcdef";
constexpr uint64_t marks_of_two = uint64_t{3} << 32;  // LiveTree::check(): lines and beats

class Live : public ::testing::Test {
  protected:
    void SetUp() override {
        if (geteuid() != 0) GTEST_SKIP() << "needs root";
        log::setup("ghost_live_test", log::level_from_environment());
        const CriuSettings criu{criu_program(), source_.path(), 20};
        if (auto warm = warm_up(criu); !warm.ok()) GTEST_SKIP() << warm.error().message();
        if (!knows_short_stop(criu)) GTEST_SKIP() << "criu was built without our patches";
    }
    void TearDown() override { set_live_probe({}); }

    LiveExportRequest request(const LiveTree& tree) const {
        return request_for<LiveExportRequest>(tree, source_);
    }
    LiveImportRequest import_request(const LiveTree& tree) const {
        LiveImportRequest out;
        out.criu = {criu_program(), target_.path(), 20};
        out.inherit = [&tree](const GhostMetadata&) -> Result<std::vector<InheritFd>> {
            return tree.inherit();
        };
        return out;
    }

    struct Moved {
        LiveExport sent;
        Result<LiveImport> got = make_error(Code::internal, "not run");
    };
    // Moves; afterwards tree.root is where it runs.
    Moved move(LiveTree& tree, const LiveExportRequest& from, const LiveImportRequest& to) {
        Moved out;
        auto links = connect(secret);
        std::thread importer([&] {
            out.got = live_import(to, *links.target);
            if (!out.got) links.target.reset();
        });
        out.sent = live_export(from, *links.source);
        if (out.sent.outcome != LiveOutcome::moved) links.source.reset();
        importer.join();
        if (out.got) {
            tree.end();  // reaps the original, which has been ended
            tree.root = out.got->root;
        }
        return out;
    }
    Moved move(LiveTree& tree) { return move(tree, request(tree), import_request(tree)); }

    // Exactly one runs, whole; nothing else is left.
    // `twice`: it has been resumed after a copy had run on for a while; its file shows both.
    void expect_one_whole(LiveTree& tree, bool twice = false) {
        EXPECT_TRUE(tree.beats());
        EXPECT_EQ(tree.check() & ~(twice ? marks_of_two : 0), 0U);
        for (const auto* folder : {&source_, &target_})
            for (const auto& entry : std::filesystem::directory_iterator(folder->path()))
                EXPECT_EQ(entry.path().filename(), "criu.log");
        int trees = 0;
        for (const pid_t child : children_of(getpid())) {
            const auto status = read_status(fmt::format("/proc/{}", child));
            if (status && status->state != 'Z') trees++;
        }
        EXPECT_EQ(trees, 1);
        const auto tasks = list_tree(tree.root);
        ASSERT_TRUE(tasks.ok());
        for (const auto& task : *tasks) {
            EXPECT_EQ(read_status(fmt::format("/proc/{}", task.pid))->tracer, 0);
            for (const pid_t tid : numbers_in(fmt::format("/proc/{}/task", task.pid)))
                EXPECT_EQ(sched_getscheduler(tid), SCHED_OTHER);
        }
    }

    // Beats, is whole, and is the only one.
    void expect_running_whole(LiveTree& tree) {
        EXPECT_TRUE(tree.beats());
        EXPECT_EQ(tree.check(), 0U);
        int trees = 0;
        for (const pid_t child : children_of(getpid())) {
            const auto status = read_status(fmt::format("/proc/{}", child));
            if (status && status->state != 'Z') trees++;
        }
        EXPECT_EQ(trees, 1);
    }

    WorkFolder source_, target_, shared_;
    pid_t after_ = 0;
};

std::string why(const LiveExport& sent) {
    return sent.error ? sent.error->message() : "";
}

// As a rank moves: quiet is asked for and not given at once, and another decides with both trees
// stopped.
TEST_F(Live, AnotherDecidesWithBothTreesStopped) {
    for (const bool stays : {true, false}) {
        LiveTree tree(shared_.path(), 64, 4, 50);
        ASSERT_TRUE(tree.wait_ready());
        int asked = 0, quiets = 0, went_on = 0;
        bool is_quiet = false;
        auto from = request(tree);
        from.leave_stopped = true;
        from.quiet = [&](int64_t wait_us) -> Result<bool> {
            EXPECT_FALSE(is_quiet);
            if (++asked % 3 != 0) return usleep(static_cast<useconds_t>(wait_us)), false;
            is_quiet = true;
            quiets++;
            return true;
        };
        from.go_on = [&] {
            EXPECT_TRUE(std::exchange(is_quiet, false));
            went_on++;
        };
        from.final_metadata = [&] { return Json{{"quiets", quiets}}; };
        auto to = import_request(tree);
        int told = 0;
        to.last_metadata = [&](const Json& fields) -> Status {
            told = fields.value("quiets", 0);
            return {};
        };
        auto links = connect(secret);
        Result<HeldTree> held = make_error(Code::internal, "not run");
        std::thread importer([&] { held = live_hold(to, *links.target); });
        auto sent = live_export(from, *links.source);
        if (sent.outcome != LiveOutcome::exported) links.source.reset();
        importer.join();
        ASSERT_EQ(sent.outcome, LiveOutcome::exported) << why(sent);
        ASSERT_TRUE(held.ok()) << held.error().message();
        EXPECT_EQ(quiets, 2);
        EXPECT_EQ(went_on, 1);
        EXPECT_EQ(told, 2);
        EXPECT_GE(sent.stats.rounds, 2);
        const auto stands = tree.count();
        for (const pid_t root : {tree.root, held->root}) {
            const auto tasks = list_tree(root);
            ASSERT_TRUE(tasks.ok());
            for (const auto& task : *tasks) EXPECT_EQ(task.state, 'T') << task.pid;
        }
        if (stays) {
            destroy_tree(*held);
            EXPECT_EQ(tree.count(), stands);
            ASSERT_TRUE(resume_tree(tree.root).ok());
            sent.tracking->stay();
        } else {
            ASSERT_TRUE(kill_tree(tree.root).ok());
            tree.end();
            EXPECT_EQ(tree.count(), stands);
            ASSERT_TRUE(release_tree(*held).ok());
            tree.root = held->root;
        }
        sent.tracking.reset();
        expect_one_whole(tree);
    }
}

// Whoever holds for somebody else hears it in the source's words, whatever it was just doing.
TEST_F(Live, WhoHoldsIsToldWhyTheSourceGivesUp) {
    for (const int quiets : {0, 1}) {
        LiveTree tree(shared_.path(), 16, 2, 20);
        ASSERT_TRUE(tree.wait_ready());
        int quiet = 0;
        auto from = request(tree);
        from.leave_stopped = true;
        from.quiet = [&](int64_t) -> Result<bool> {
            if (quiet++ < quiets) return true;
            return because(quiets == 0 ? Code::busy : Code::unsupported, "others than before");
        };
        const auto to = import_request(tree);
        auto links = connect(secret);
        Result<HeldTree> held = make_error(Code::internal, "not run");
        std::thread importer([&] { held = live_hold(to, *links.target); });
        const auto sent = live_export(from, *links.source);
        links.source.reset();
        importer.join();
        EXPECT_EQ(sent.outcome, LiveOutcome::stayed);
        EXPECT_EQ(why(sent), "others than before");
        ASSERT_FALSE(held.ok());
        EXPECT_EQ(held.error().code, Code::busy);
        EXPECT_EQ(held.error().why, "others than before");
        expect_one_whole(tree);
    }
}

TEST_F(Live, LiveMoveIsComplete) {
    LiveTree tree(shared_.path(), 64, 4, 50);
    ASSERT_TRUE(tree.wait_ready());
    const auto before = tree.count();
    const auto moved = move(tree);
    ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
    ASSERT_TRUE(moved.got.ok()) << moved.got.error().message();
    expect_one_whole(tree);
    std::printf("   64 MB: longest gap %.1f ms; stops: skeleton %.1f, last %.1f ms\n",
                tree.longest_gap(before).first, moved.sent.stats.skeleton_stop / 1000.0,
                moved.sent.stats.stop / 1000.0);
}

// With pages before it and after it: whoever has stopped it lets it go on.
TEST_F(Live, StoppedTreeStaysStopped) {
    for (const auto order : {PageOrder::pre_copy, PageOrder::post_copy}) {
        SCOPED_TRACE(static_cast<int>(order));
        LiveTree tree(shared_.path(), 16, 2, 20);
        ASSERT_TRUE(tree.wait_ready());
        const auto all = [&tree](int signal) {
            const auto tasks = list_tree(tree.root);
            ASSERT_TRUE(tasks.ok());
            for (const auto& task : *tasks) kill(task.pid, signal);
        };
        const auto is_stopped = [&tree] {
            const auto tasks = list_tree(tree.root);
            return tasks.ok() &&
                   std::ranges::all_of(*tasks, [](const Task& task) { return task.state == 'T'; });
        };
        all(SIGSTOP);
        while (!is_stopped()) usleep(1000);
        auto from = request(tree);
        from.order = order;
        const auto moved = move(tree, from, import_request(tree));
        ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
        ASSERT_TRUE(moved.got.ok()) << moved.got.error().message();
        EXPECT_TRUE(is_stopped());
        all(SIGCONT);
        expect_one_whole(tree);
    }
}

TEST_F(Live, LiveMoveThereAndBack) {
    LiveTree tree(shared_.path(), 16, 2, 20);
    ASSERT_TRUE(tree.wait_ready());
    for (int i = 0; i < 5; i++) {
        const auto moved = move(tree);
        ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
        expect_one_whole(tree);
    }
}

// What differences cannot carry begins anew, and the tree comes along with it.
TEST_F(Live, TreeChangedDuringMoveIsTriedAgain) {
    for (const Ask change : {Ask::thread, Ask::file, Ask::handler, Ask::another, Ask::narrowed,
                             Ask::split, Ask::kept}) {
        LiveTree tree(shared_.path(), 16, 2, 20);
        ASSERT_TRUE(tree.wait_ready());
        ASSERT_TRUE(tree.ask(Ask::named));
        bool changed = false;
        set_live_probe([&](const char* point) {
            if (std::string(point) == "source: held" && !changed) changed = tree.ask(change);
        });
        const auto moved = move(tree);
        set_live_probe({});
        ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
        EXPECT_TRUE(changed);
        EXPECT_EQ(moved.sent.stats.attempts, 2) << static_cast<uint64_t>(change);
        expect_one_whole(tree);
        tree.end();
    }
}

// At every moment, also between the looks at a tree that is quiet.
TEST_F(Live, ProcessThatEndsDuringMoveIsLeftOut) {
    for (const std::string when : {"quiet", "source: skeleton", "source: sent", "source: held",
                                   "source: converged", "last quiet"}) {
        SCOPED_TRACE(when);
        LiveTree tree(shared_.path(), 16, 2, 2);
        ASSERT_TRUE(tree.wait_ready());
        ASSERT_TRUE(tree.ask(Ask::child));
        bool changed = false;
        const auto end = [&] {
            if (std::exchange(changed, true)) return;
            EXPECT_TRUE(tree.ask(Ask::childless));
        };
        auto from = request(tree);
        from.longest_us = 60'000'000;  // however slow the machine
        int quiets = 0;
        from.quiet = [&](int64_t) -> Result<bool> {
            if (++quiets == (when == "quiet" ? 1 : when == "last quiet" ? 2 : 0)) end();
            return true;
        };
        set_live_probe([&](const char* point) {
            if (point == when) end();
        });
        const auto moved = move(tree, from, import_request(tree));
        set_live_probe({});
        ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
        EXPECT_TRUE(changed);
        EXPECT_GE(moved.sent.stats.attempts, 2);  // on a busy machine 3
        expect_one_whole(tree);
        tree.end();
    }
}

// A target that does not find what the tree had, and has removed since its skeleton, gets a new
// one.
TEST_F(Live, FilesRemovedDuringMoveAreNotLookedFor) {
    for (const char* when : {"source: skeleton", "source: sent", "target: made"}) {
        LiveTree tree(shared_.path(), 16, 2, 20);
        ASSERT_TRUE(tree.wait_ready());
        ASSERT_TRUE(tree.ask(Ask::named));
        bool changed = false;
        set_live_probe([&](const char* point) {
            if (std::string_view(point) == when && !changed) changed = tree.ask(Ask::unnamed);
        });
        const auto moved = move(tree);
        set_live_probe({});
        ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << when << ": " << why(moved.sent);
        EXPECT_TRUE(changed);
        EXPECT_EQ(moved.sent.stats.attempts, 2);
        expect_one_whole(tree);
        tree.end();
    }
}

TEST_F(Live, TreeWithTimerStays) {
    LiveTree tree(shared_.path(), 8, 1, 10);
    ASSERT_TRUE(tree.wait_ready());
    ASSERT_TRUE(tree.ask(Ask::timer));
    const auto moved = move(tree);
    EXPECT_EQ(moved.sent.outcome, LiveOutcome::stayed);
    ASSERT_TRUE(moved.sent.error.has_value());
    EXPECT_NE(why(moved.sent).find("timer"), std::string::npos) << why(moved.sent);
    EXPECT_FALSE(moved.got.ok());
    expect_one_whole(tree);
}

TEST_F(Live, FastWriterStays) {
    LiveTree tree(shared_.path(), 64, 4, 4000);
    ASSERT_TRUE(tree.wait_ready());
    auto from = request(tree);
    from.downtime_us = 1;
    from.longest_us = 1;
    auto moved = move(tree, from, import_request(tree));
    // Whom others leave no processor for the length of a round writes nothing in it.
    for (int i = 0; i < 3 && moved.sent.outcome == LiveOutcome::moved; i++) {
        from = request(tree);
        from.downtime_us = from.longest_us = 1;
        moved = move(tree, from, import_request(tree));
    }
    EXPECT_EQ(moved.sent.outcome, LiveOutcome::stayed);
    EXPECT_NE(why(moved.sent).find("writes faster"), std::string::npos) << why(moved.sent);
    EXPECT_TRUE(tree.beats());
}

TEST_F(Live, UncommittedMoveKeepsSource) {
    LiveTree tree(shared_.path(), 8, 2, 20);
    ASSERT_TRUE(tree.wait_ready());
    auto from = request(tree);
    from.commit = []() -> Status { return make_error(Code::refused, "changed its mind"); };
    const auto calls_off = move(tree, from, import_request(tree));
    EXPECT_EQ(calls_off.sent.outcome, LiveOutcome::stayed);
    expect_one_whole(tree);
    auto to = import_request(tree);
    to.release = []() -> Status { return make_error(Code::io, "no room for the record"); };
    const auto refuses = move(tree, request(tree), to);
    EXPECT_EQ(refuses.sent.outcome, LiveOutcome::stayed) << why(refuses.sent);
    EXPECT_NE(why(refuses.sent).find("no room"), std::string::npos) << why(refuses.sent);
    expect_one_whole(tree);
}

// Also what is changed after the skeleton has been taken.
TEST_F(Live, ThreadsArePlacedAsBefore) {
    const auto bind = [](pid_t tid, size_t cpu) {
        cpu_set_t mask;
        CPU_ZERO(&mask);
        CPU_SET(cpu, &mask);
        EXPECT_EQ(sched_setaffinity(tid, sizeof mask, &mask), 0);
    };
    LiveTree tree(shared_.path(), 16, 4, 10);
    ASSERT_TRUE(tree.wait_ready());
    for (const auto order : {PageOrder::pre_copy, PageOrder::post_copy, PageOrder::hybrid}) {
        std::map<int, pid_t> before;
        for (const auto& [tid, inner] : PtraceSession::numbers(tree.root)) before[inner] = tid;
        ASSERT_GT(before.size(), 2U);
        const auto [last_inner, last] = *before.rbegin();
        const auto [other_inner, other] = *std::next(before.rbegin());
        bind(last, 0);
        bind(other, 0);
        set_live_probe([&, other = other](const char* point) {
            if (std::string_view(point) != "source: converged") return;
            bind(other, 1);
            EXPECT_EQ(setpriority(PRIO_PROCESS, static_cast<id_t>(other), 5), 0);
        });
        auto from = request(tree);
        from.order = order;
        const auto moved = move(tree, from, import_request(tree));
        ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
        for (const auto& [tid, inner] : PtraceSession::numbers(tree.root)) {
            cpu_set_t mask;
            EXPECT_EQ(sched_getaffinity(tid, sizeof mask, &mask), 0);
            const bool is_bound = inner == last_inner || inner == other_inner;
            EXPECT_EQ(CPU_COUNT(&mask) == 1, is_bound);
            EXPECT_TRUE(CPU_ISSET(inner == other_inner ? 1 : 0, &mask));
            EXPECT_EQ(getpriority(PRIO_PROCESS, static_cast<id_t>(tid)),
                      inner == other_inner ? 5 : 0);
        }
        expect_one_whole(tree);
        for (const auto& [tid, inner] : PtraceSession::numbers(tree.root))
            EXPECT_EQ(setpriority(PRIO_PROCESS, static_cast<id_t>(tid), 0), 0);
    }
}

// All pages follow: the last stop is short whatever it writes.
TEST_F(Live, PostCopyMoveIsComplete) {
    LiveTree tree(shared_.path(), 64, 4, 50);
    ASSERT_TRUE(tree.wait_ready());
    for (int i = 0; i < 3; i++) {
        const auto before = tree.count();
        auto from = request(tree);
        from.order = PageOrder::post_copy;
        const auto moved = move(tree, from, import_request(tree));
        ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
        ASSERT_TRUE(moved.got.ok()) << moved.got.error().message();
        const auto& stats = moved.sent.stats;
        EXPECT_GE(stats.deferred_bytes, 64U << 20);
        EXPECT_GT(stats.faults, 0U);
        // While it changes its memory nothing can be put there; that is no reason to ask again.
        EXPECT_LT(stats.served_bytes, 2 * stats.deferred_bytes);
        expect_one_whole(tree);
        std::printf(
            "   longest gap %.1f ms; last stop %.1f ms; %llu faults, longest %.1f ms, whole "
            "after %.1f ms\n",
            tree.longest_gap(before).first, static_cast<double>(stats.stop) / 1e3,
            static_cast<unsigned long long>(stats.faults),
            static_cast<double>(stats.longest_fault) / 1e3,
            static_cast<double>(stats.deferred) / 1e3);
    }
}

// Who writes faster than can be copied moves all the same, and what it has not written before.
TEST_F(Live, HybridMovesFastWriter) {
    LiveTree tree(shared_.path(), 64, 4, 4000);
    ASSERT_TRUE(tree.wait_ready());
    auto from = request(tree);
    from.order = PageOrder::hybrid;
    from.downtime_us = from.longest_us = 1;
    // By each round's end, and by the stop, it has written twice as much again as is worth to be
    // called late (8 MB), however slow the machine is.
    const auto writes = [&] { EXPECT_TRUE(tree.writes(4096)); };
    from.progress = [&](uint64_t done, uint64_t all) {
        if (done == all) writes();
    };
    set_live_probe([&](const char* point) {
        if (std::string_view(point) == "source: converged") writes();
    });
    const auto moved = move(tree, from, import_request(tree));
    ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
    ASSERT_TRUE(moved.got.ok()) << moved.got.error().message();
    EXPECT_GT(moved.sent.stats.deferred_bytes, 0U);
    EXPECT_GT(moved.sent.stats.rounds, 0);
    expect_one_whole(tree);
}

// Nothing is named that would be sent as quickly.
TEST_F(Live, HybridIsPreCopyWhereThatIsEnough) {
    LiveTree tree(shared_.path(), 16, 2, 10);
    ASSERT_TRUE(tree.wait_ready());
    auto from = request(tree);
    from.order = PageOrder::hybrid;
    from.downtime_us = 20000;
    const auto moved = move(tree, from, import_request(tree));
    ASSERT_EQ(moved.sent.outcome, LiveOutcome::moved) << why(moved.sent);
    EXPECT_EQ(moved.sent.stats.deferred_bytes, 0U);
    expect_one_whole(tree);
}

// The connection is cut at every point of both sides: exactly one runs, or, between COMMIT and the
// target's word, the original is frozen until somebody says what became of the copy.
// With post-copy the same until the word of the target; then the original has what the copy lacks.
class LiveCut : public Live,
                public ::testing::WithParamInterface<std::tuple<PageOrder, const char*>> {};

TEST_P(LiveCut, ConnectionCutLeavesExactlyOneRunning) {
    LiveTree tree(shared_.path(), 8, 2, 20);
    ASSERT_TRUE(tree.wait_ready());
    auto links = connect(secret);
    std::atomic<bool> cut = false;
    const auto [order, where] = GetParam();
    set_live_probe([&, place = std::string(where)](const char* point) {
        if (point != place || cut.exchange(true)) return;
        ::shutdown(links.source->fd(), SHUT_RDWR);
    });
    auto from = request(tree);
    from.order = order;
    const auto to = import_request(tree);
    Result<LiveImport> got = make_error(Code::internal, "not run");
    std::thread importer([&] { got = live_import(to, *links.target); });
    const auto sent = live_export(from, *links.source);
    ::shutdown(links.source->fd(), SHUT_RDWR);
    importer.join();
    set_live_probe({});
    EXPECT_TRUE(cut);
    switch (sent.outcome) {
        case LiveOutcome::stayed:
            EXPECT_FALSE(got.ok());
            break;
        case LiveOutcome::exported:
        case LiveOutcome::moved:
            ASSERT_TRUE(got.ok()) << got.error().message();
            tree.end();
            tree.root = got->root;
            break;
        case LiveOutcome::stranded:
        case LiveOutcome::undecided:
            // What a coordinator does with the target's record.
            if (got) {
                kill_tree(tree.root).ok();
                tree.end();
                tree.root = got->root;
            } else {
                EXPECT_TRUE(resume_tree(tree.root).ok());
            }
            break;
    }
    expect_one_whole(tree, order == PageOrder::post_copy && !got);
}

constexpr const char* points[] = {"source: skeleton", "source: sent",      "target: made",
                                  "source: held",     "target: held",      "source: converged",
                                  "source: frozen",   "source: all sent",  "target: ready",
                                  "source: ready",    "source: committed", "target: committed",
                                  "target: recorded", "target: released",  "source: moved"};
INSTANTIATE_TEST_SUITE_P(Points, LiveCut,
                         ::testing::Combine(::testing::Values(PageOrder::pre_copy,
                                                              PageOrder::post_copy),
                                            ::testing::ValuesIn(points)));
INSTANTIATE_TEST_SUITE_P(LatePoints, LiveCut,
                         ::testing::Combine(::testing::Values(PageOrder::post_copy),
                                            ::testing::Values("source: pages follow",
                                                              "target: pages follow",
                                                              "target: complete")));

// The process that moves the tree out, or the one that takes it in, is killed at a point. Both are
// children of this one, which reaps the trees: a node's agent does that in a cluster.
struct Death {
    const char* point;
    bool moved;  // whether the target had recorded the release
};

// Processes that can be killed.
class LiveAgents : public Live {
  protected:
    // Runs `work` in a process of its own, which dies at the point.
    static pid_t agent(const char* point, const std::function<int()>& work) {
        const pid_t pid = fork();
        if (pid != 0) return pid;
        set_live_probe([point](const char* at) {
            if (std::string(at) == point) kill(getpid(), SIGKILL);
        });
        _exit(work());
    }
};

class LiveDeath : public LiveAgents, public ::testing::WithParamInterface<Death> {};

TEST_P(LiveDeath, DeathOfASideLeavesExactlyOneRunning) {
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    LiveTree tree(shared_.path(), 8, 2, 20);
    ASSERT_TRUE(tree.wait_ready());
    auto links = connect(secret);
    const Pipe record = make_pipe();  // the target's: the root's number once it was released
    const pid_t target = agent(GetParam().point, [&] {
        links.source.reset();
        auto to = import_request(tree);
        to.release = [&]() -> Status {
            return write(record.in.get(), "r", 1) == 1 ? Status() : sys_error("record");
        };
        return live_import(to, *links.target).ok() ? 0 : 1;
    });
    const pid_t source = agent(GetParam().point, [&] {
        links.target.reset();
        return live_export(request(tree), *links.source).outcome == LiveOutcome::moved ? 0 : 1;
    });
    links = {};
    for (const pid_t pid : {target, source})
        while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
        }
    pollfd recorded{record.out.get(), POLLIN, 0};
    const bool released = poll(&recorded, 1, 0) == 1;
    EXPECT_EQ(released, GetParam().moved);
    // What a coordinator does by that record.
    if (released) {
        for (const pid_t child : children_of(getpid()))
            if (child != tree.root) after_ = child;
        kill_tree(tree.root).ok();
        tree.end();
        tree.root = after_;
    } else if (kill(tree.root, 0) == 0) {
        resume_tree(tree.root).ok();
    }
    // What is left of the other one never ran, or has ended; a node's agent takes it away.
    for (int status = 0, i = 0; i < 50; i++, usleep(2000))
        for (const pid_t child : children_of(getpid())) {
            if (child == tree.root) continue;
            const auto left = read_status(fmt::format("/proc/{}", child));
            if (left && left->state == 'T') kill(child, SIGKILL);
            waitpid(child, &status, WNOHANG);
        }
    expect_running_whole(tree);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

// The copy runs, without its pages, and who gets them for it is killed: it ends as well. The
// original is frozen, and has everything.
TEST_F(LiveAgents, TargetKilledWhilePagesFollowEndsCopy) {
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    LiveTree tree(shared_.path(), 32, 2, 20);
    ASSERT_TRUE(tree.wait_ready());
    auto links = connect(secret);
    const pid_t target = agent("target: pages follow", [&] {
        links.source.reset();
        return live_import(import_request(tree), *links.target).ok() ? 0 : 1;
    });
    links.target.reset();
    auto from = request(tree);
    from.order = PageOrder::post_copy;
    const auto sent = live_export(from, *links.source);
    EXPECT_EQ(sent.outcome, LiveOutcome::stranded) << why(sent);
    while (waitpid(target, nullptr, 0) < 0 && errno == EINTR) {
    }
    std::vector<pid_t> others = {0};
    for (int i = 0; i < 5000 && !others.empty(); i++, usleep(1000)) {
        others = children_of(getpid());
        std::erase(others, tree.root);
        for (const pid_t child : others) waitpid(child, nullptr, WNOHANG);
    }
    EXPECT_TRUE(others.empty()) << "the copy runs on without its pages";
    EXPECT_TRUE(resume_tree(tree.root).ok());
    expect_one_whole(tree, true);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Points, LiveDeath,
    ::testing::Values(Death{"source: skeleton", false}, Death{"source: sent", false},
                      Death{"target: made", false}, Death{"source: held", false},
                      Death{"target: held", false}, Death{"source: converged", false},
                      Death{"source: frozen", false}, Death{"source: all sent", false},
                      Death{"target: ready", false}, Death{"source: ready", false},
                      Death{"source: committed", true}, Death{"target: committed", false},
                      Death{"target: released", true}, Death{"source: moved", true}));

}  // namespace
}  // namespace ghost::core::test
