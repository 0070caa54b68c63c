// SPDX-License-Identifier: BSD-3-Clause
// Ranks of running jobs move live between the nodes of a virtual cluster: they compute and
// communicate while their memory goes over, and check themselves. GHOST_TEST_MOVES=N: how many
// mixed ones (12; with GHOST_TEST_LONG=1 1,000; of 200 and more what they leave is compared),
// GHOST_TEST_SEED=S: which. Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <sstream>

#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Move;
using nettest::program;
using nettest::Words;

const Words live = {"--mode", "live"};

class LiveMoves : public nettest::OnLab {
  protected:
    // Rank 0 on gn1, rank 1 on gn2, nothing on gn3. None is too small.
    std::unique_ptr<Job> two_ranks(const Words& words, bool input = false) {
        Words all{"--mca", "ghost_migrate_live_from", "0"};
        all.insert(all.end(), words.begin(), words.end());
        return std::make_unique<Job>(lab(), 2, "gn1:1,gn2:1,gn3:1", all, "", input);
    }

    static Move migrate(Job& job, int rank, const std::string& node, const Words& options = live) {
        return nettest::move_of(job.start_migrate(rank, node, options).finish(60));
    }

    void expect_live(Job& job, int rank, const std::string& node) {
        const Move move = migrate(job, rank, node);
        ASSERT_EQ(move.status, 0) << move.err << job.mpirun().err();
        EXPECT_TRUE(move.result.value("moved", false)) << move.result.dump();
        EXPECT_EQ(move.result.value("mode", ""), "live") << move.result.dump();
        EXPECT_GE(move.result.value("rounds", 0), 2) << move.result.dump();
        EXPECT_EQ(job.node_of(rank), node);
    }
};

TEST_F(LiveMoves, ThereAndBackWithMemoryThatIsChecked) {
    auto job = two_ranks(endless("pattern", {"--memory", "64", "--max-bytes", "70000"}));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    for (const auto& [rank, node] : {std::pair{1, "gn3"}, {1, "gn2"}, {0, "gn3"}, {0, "gn1"}}) {
        expect_live(*job, rank, node);
        ASSERT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
    }
    expect_clean_end(*job, "pattern:");
}

// What it writes again and again is little: how fast it does then does not matter.
TEST_F(LiveMoves, WhileBothSidesSend) {
    auto job = two_ranks(endless("both_send", {"--bytes", "500000"}));
    ASSERT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
    for (const auto& [rank, node] : {std::pair{1, "gn3"}, {0, "gn2"}, {1, "gn1"}}) {
        expect_live(*job, rank, node);
        ASSERT_TRUE(job->wait_for_more("round ")) << job->mpirun().err();
    }
    expect_clean_end(*job, "both_send:");
}

// In a row, beside moves by stop and a snapshot.
TEST_F(LiveMoves, RankThatNeverCallsMpiManyTimes) {
    auto job = two_ranks(endless("compute"));
    ASSERT_TRUE(job->wait_for("compute: started")) << job->mpirun().err();
    for (int i = 0; i < 6; i++) {
        expect_live(*job, 1, i % 2 == 0 ? "gn3" : "gn2");
        if (i == 2) {
            const Words save{"ghost", "checkpoint", "--to", path("snapshots")};
            EXPECT_EQ(lab().on("gn1", save).status, 0);
        }
        for (const char* node : {"gn3", "gn2"}) {
            if (i != 3) break;
            const Move move = migrate(*job, 1, node, {"--mode", "stop"});
            EXPECT_TRUE(move.result.value("moved", false)) << move.err << move.result.dump();
            EXPECT_EQ(move.result.value("mode", ""), "stop") << move.result.dump();
        }
    }
    stop();
    const Finished end = job->finish();
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_EQ(nettest::count_of(end.out, " 0 errors,"), 2U) << end.out;
}

// What the rank has not read is not known before its last stop.
TEST_F(LiveMoves, InputFollowsRank) {
    auto job = two_ranks({program("talk"), "--stdin"}, true);
    expect_input_follows(*job, [&](const std::string& node) { expect_live(*job, 0, node); });
}

TEST_F(LiveMoves, WhatCannotGoLiveIsRefusedOrMovesByStop) {
    auto job = two_ranks(endless("holder", {"--what", "timer", "--rank", "1"}));
    ASSERT_TRUE(job->wait_for("holder: started")) << job->mpirun().err();
    const Move refused = migrate(*job, 1, "gn3");
    EXPECT_EQ(refused.status, 1) << refused.err;
    for (const char* part : {"it cannot move live: ", "it has a timer (setitimer)"})
        EXPECT_NE(refused.err.find(part), std::string::npos) << refused.err;
    EXPECT_EQ(job->node_of(1), "gn2");
    const Move stopped = migrate(*job, 1, "gn3", {"--mode", "auto"});
    EXPECT_EQ(stopped.status, 0) << stopped.err;
    EXPECT_EQ(stopped.result.value("mode", ""), "stop") << stopped.result.dump();
    EXPECT_NE(stopped.result.value("not_live", "").find("it has a timer"), std::string::npos);
    EXPECT_EQ(job->node_of(1), "gn3");
    expect_clean_end(*job, "holder: ");
}

// What the wrapper finds before anything is sent: the move goes on by stop.
TEST_F(LiveMoves, WhereWritesCannotBeTrackedRanksMoveByStop) {
    const std::string older = program("../process/.libs/older_kernel.so");
    Words words{"-x", "LD_PRELOAD=" + older, "-x", "CRIU_FAULT=135"};
    for (const std::string& word : endless("pattern")) words.push_back(word);
    auto job = two_ranks(words);
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    const Move refused = migrate(*job, 1, "gn3");
    EXPECT_EQ(refused.status, 1) << refused.err;
    EXPECT_NE(refused.err.find("it cannot move live: "), std::string::npos) << refused.err;
    const Move stopped = migrate(*job, 1, "gn3", {"--mode", "auto"});
    EXPECT_EQ(stopped.status, 0) << stopped.err;
    EXPECT_EQ(stopped.result.value("mode", ""), "stop") << stopped.result.dump();
    EXPECT_TRUE(stopped.result.value("moved", false)) << stopped.result.dump();
    EXPECT_NE(stopped.result.value("not_live", "").find("track writes"), std::string::npos);
    ASSERT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// By auto it stands for what it writes meanwhile, at most for as long as by stop.
TEST_F(LiveMoves, RankThatWritesFasterThanItsLinkMovesByAuto) {
    auto job = two_ranks(endless("pattern", {"--max-bytes", "2000000"}));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    lab().shape("gn3", "fast-ethernet");
    const Move refused = migrate(*job, 1, "gn3");
    EXPECT_EQ(refused.status, 1) << refused.err << refused.result.dump();
    EXPECT_NE(refused.err.find("writes faster than can be copied"), std::string::npos)
        << refused.err;
    const Move moved = migrate(*job, 1, "gn3", {"--mode", "auto"});
    EXPECT_EQ(moved.status, 0) << moved.err;
    EXPECT_EQ(moved.result.value("mode", ""), "live") << moved.result.dump();
    EXPECT_TRUE(moved.result.value("moved", false)) << moved.result.dump();
    ASSERT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// What all processes of a name have on all nodes.
struct Standing {
    long processes = 0, memory_kib = 0, descriptors = 0, threads = 0;
};
using Standings = std::map<std::string, Standing>;

constexpr const char* look_at_all =
    "for p in $(pgrep -x 'mpirun|orted|ghost-wrapper|ghost-init|coverage'); do "
    "echo $(cat /proc/$p/comm) $(ls /proc/$p/fd | wc -l) "
    "$(awk '/^RssAnon/ {m = $2} /^Threads/ {t = $2} END {print m, t}' /proc/$p/status); done";

Standings standings(nettest::Lab& lab, int nodes) {
    Standings all;
    for (int i = 1; i <= nodes; i++) {
        std::istringstream lines(
            lab.as_root("gn" + std::to_string(i), {"sh", "-c", look_at_all}).out);
        std::string name;
        for (Standing one; lines >> name >> one.descriptors >> one.memory_kib >> one.threads;) {
            Standing& sum = all[name == "mpirun" ? "orted" : name];
            sum.processes++;
            sum.descriptors += one.descriptors;
            sum.memory_kib += one.memory_kib;
            sum.threads += one.threads;
        }
    }
    return all;
}

void print(long long moves, const Standings& all) {
    for (const auto& [name, one] : all)
        std::printf("    move %lld: %ld %s: %ld KiB, %ld descriptors, %ld threads\n", moves,
                    one.processes, name == "orted" ? "mpirun and daemons" : name.c_str(),
                    one.memory_kib, one.descriptors, one.threads);
    std::fflush(stdout);
}

class MixedMoves : public LiveMoves {
  protected:
    static constexpr int ranks = 4, nodes = 4;
    static void SetUpTestSuite() { make_lab(nodes); }

    Standings comparable(Job& job);
    Standings calm() {
        Standings now;
        const bool is_calm = nettest::poll_until(30, [&] {
            now = standings(lab(), nodes);
            return now["ghost-wrapper"].processes == wrappers_ || wrappers_ == 0;
        });
        EXPECT_TRUE(is_calm) << now["ghost-wrapper"].processes << " wrappers";
        return now;
    }
    void one(Job& job);
    void expect_no_growth(const Standings& then, const Standings& now, long long moves) const;

    long wrappers_ = 0;  // when nothing moves
    std::mt19937_64 random_{static_cast<uint64_t>(ghost::test::rounds("GHOST_TEST_SEED", 1, 1))};
    std::map<std::string, int> done_;  // by how it was asked for and done
};

// Each rank has come to its node by stop; the least of several looks, as phases need more or less.
Standings MixedMoves::comparable(Job& job) {
    for (int rank = 0; rank < ranks; rank++)
        for (const int node : {(rank + 1) % nodes + 1, rank % nodes + 1})
            EXPECT_EQ(migrate(job, rank, "gn" + std::to_string(node), {"--mode", "stop"}).status, 0)
                << job.mpirun().err();
    Standings least = calm();
    for (int look = 0; look < 10; look++) {
        EXPECT_TRUE(job.wait_for_more("phase ", 2)) << job.mpirun().err();
        for (const auto& [name, now] : calm()) {
            Standing& one = least[name];
            one.memory_kib = std::min(one.memory_kib, now.memory_kib);
            one.descriptors = std::min(one.descriptors, now.descriptors);
            one.threads = std::min(one.threads, now.threads);
        }
    }
    return least;
}

void MixedMoves::one(Job& job) {
    constexpr const char* modes[] = {"live", "stop", "auto"};
    const int rank = static_cast<int>(random_() % ranks);
    const std::string node = "gn" + std::to_string(1 + random_() % nodes);
    const std::string mode = modes[random_() % 3];
    const Move move = migrate(job, rank, node, {"--mode", mode});
    const bool cannot = move.err.find("it cannot move live: ") != std::string::npos;
    ASSERT_TRUE(move.status == 0 || (mode == "live" && cannot)) << move.err << job.mpirun().err();
    done_[move.status != 0                     ? "live: refused"
          : !move.result.value("moved", false) ? mode + ": there already"
                                               : mode + ": " + move.result.value("mode", "")]++;
    if (move.status == 0) {
        ASSERT_EQ(job.node_of(rank), node);
    }
    ASSERT_TRUE(job.wait_for_more("phase ")) << job.mpirun().err();
}

// libpmix keeps 1.7 KiB of a client that has left.
void MixedMoves::expect_no_growth(const Standings& then, const Standings& now,
                                  long long moves) const {
    for (const auto& [name, before] : then) {
        SCOPED_TRACE(name);
        const Standing& after = now.at(name);
        EXPECT_EQ(after.processes, before.processes);
        EXPECT_LE(after.descriptors, before.descriptors + 4 * before.processes);
        EXPECT_LE(after.threads, before.threads + before.processes);
        EXPECT_LE(after.memory_kib, before.memory_kib + 512 * before.processes + 5 * moves);
    }
}

// Of random ranks, to random nodes, by random modes.
TEST_F(MixedMoves, OfASelfCheckingProgramWithFiles) {
    const long long count = ghost::test::rounds("GHOST_TEST_MOVES", 12, 1000);
    constexpr long long warm = 100;  // until each rank has had its links of every kind
    const bool is_enough_to_grow = count >= 2 * warm;
    Words words{"--map-by", "node", "--mca", "mpi_yield_when_idle", "1"};
    for (const std::string& word : endless("coverage", {"--dir", path("."), "--memory", "24",
                                                        "--phases", "messages,collectives,files"}))
        words.push_back(word);
    Job job(lab(), ranks, "gn1:4,gn2:4,gn3:4,gn4:4", words);
    ASSERT_TRUE(job.wait_for("phase ", 3)) << job.mpirun().err();
    wrappers_ = calm()["ghost-wrapper"].processes;
    Standings then;
    for (long long i = 0; i < count; i++) {
        SCOPED_TRACE("move " + std::to_string(i));
        if (i == warm && is_enough_to_grow) print(i, then = comparable(job));
        ASSERT_NO_FATAL_FAILURE(one(job));
    }
    for (const auto& [how, times] : done_) std::printf("    %s: %d\n", how.c_str(), times);
    if (is_enough_to_grow) {
        const Standings now = comparable(job);
        print(count, now);
        expect_no_growth(then, now, count - warm);
    }
    expect_clean_end(job, "coverage:");
}

struct Victim {
    const char* name;
    const char* node;
    const char* pattern;
};

class KilledInTheRounds : public LiveMoves, public ::testing::WithParamInterface<Victim> {};

// The target's link is slow, so that the rank runs and its memory goes over when it comes.
TEST_P(KilledInTheRounds, RankGoesOnAtSource) {
    auto job = two_ranks(endless("pattern", {"--memory", "64", "--max-bytes", "70000"}));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    const Victim victim = GetParam();
    lab().shape("gn3", "fast-ethernet");
    const uint64_t before = lab().received("gn3");
    Background order = job->start_migrate(1, "gn3", live);
    ASSERT_TRUE(nettest::poll_until(
        20, [&] { return !order.running() || lab().received("gn3") > before + (4 << 20); }));
    ASSERT_TRUE(order.running()) << order.err() << "the move ended before anyone was killed";
    const auto pids = lab().pids(victim.node, victim.pattern);
    ASSERT_FALSE(pids.empty()) << "no " << victim.pattern << " on " << victim.node;
    for (const int pid : pids) lab().kill(victim.node, pid);
    const Move move = nettest::move_of(order.finish(90));
    EXPECT_EQ(move.status, 1) << move.err;
    EXPECT_EQ(job->node_of(1), "gn2");
    ASSERT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

INSTANTIATE_TEST_SUITE_P(
    LiveMoves, KilledInTheRounds,
    ::testing::Values(Victim{"SourceWrapper", "gn2", "^[^ ]*ghost-wrapper .*pattern"},
                      Victim{"TargetWrapper", "gn3", "^[^ ]*ghost-wrapper .*--restore"},
                      Victim{"TargetDaemon", "gn3", "^[^ ]*orted( |$)"}),
    [](const auto& info) { return info.param.name; });

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
