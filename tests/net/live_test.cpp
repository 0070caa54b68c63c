// SPDX-License-Identifier: BSD-3-Clause
// Ranks of running jobs move live between the nodes of a virtual cluster: they compute and
// communicate while their memory goes over, and check themselves. Needs root; without it every case
// is skipped.
#include <gtest/gtest.h>

#include <memory>

#include "tests/net/on_lab.hpp"

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
    // Rank 0 on gn1, rank 1 on gn2, nothing on gn3.
    std::unique_ptr<Job> two_ranks(const Words& words, bool input = false) {
        return std::make_unique<Job>(lab(), 2, "gn1:1,gn2:1,gn3:1", words, "", input);
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
    auto job = two_ranks(endless("pattern", {"--memory", "64"}));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    for (const auto& [rank, node] : {std::pair{1, "gn3"}, {1, "gn2"}, {0, "gn3"}, {0, "gn1"}}) {
        expect_live(*job, rank, node);
        ASSERT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
    }
    expect_clean_end(*job, "pattern:");
}

TEST_F(LiveMoves, WhileBothSidesSend) {
    auto job = two_ranks(endless("both_send"));
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
        if (i == 3) {
            expect_moved(*job, 1, "gn3");
            expect_moved(*job, 1, "gn2");
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
