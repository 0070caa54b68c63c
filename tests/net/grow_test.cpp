// SPDX-License-Identifier: BSD-3-Clause
// Nodes that join a running job on a virtual cluster: ranks move there and back, a drained node is
// replaced, comes back, and what cannot join leaves the job as it was. Needs root; without it every
// case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Background;
using nettest::Job;
using nettest::Json;
using nettest::Move;
using nettest::Words;

class Grow : public nettest::OnLab {
  protected:
    static void SetUpTestSuite() { make_lab(4); }
    void expect_joins(Job& job, const std::string& node) {
        const Move joined = verb({"grow", node});
        ASSERT_EQ(joined.status, 0) << joined.err << job.mpirun().err();
        EXPECT_EQ(joined.result["joined"], true) << joined.result;
    }
    void expect_refused(Job& job, const std::string& node, const std::string& why) {
        const Move joined = verb({"grow", node});
        EXPECT_EQ(joined.status, 1) << joined.result;
        EXPECT_NE(joined.err.find(why), std::string::npos) << joined.err;
        EXPECT_NE(joined.err.find("the job, which is unharmed"), std::string::npos) << joined.err;
        EXPECT_EQ(joined.result["joined"], false) << joined.result;
        expect_goes_on(job);
    }
    // All on gn1.
    std::unique_ptr<Job> job_of(const std::string& name, const Words& options = {}) {
        auto job = std::make_unique<Job>(lab(), 4, "gn1:4,gn2:4,gn3:4", endless(name, options));
        EXPECT_TRUE(job->wait_for("round ")) << job->mpirun().err();
        return job;
    }
};

// Every rank sends to every other all the time.
TEST_F(Grow, RanksMoveToTheNodeAndBack) {
    auto job = job_of("pattern");
    ASSERT_NO_FATAL_FAILURE(expect_joins(*job, "gn4:2"));
    expect_goes_on(*job);
    for (int rank : {0, 3}) ASSERT_NO_FATAL_FAILURE(expect_moved(*job, rank, "gn4"));
    expect_goes_on(*job);
    const Move full = job->migrate(1, "gn4");
    EXPECT_NE(full.err.find("node gn4 is full"), std::string::npos) << full.err;
    ASSERT_NO_FATAL_FAILURE(expect_moved(*job, 0, "gn2"));
    ASSERT_NO_FATAL_FAILURE(expect_moved(*job, 3, "gn3"));
    ASSERT_NO_FATAL_FAILURE(expect_moved(*job, 1, "gn4"));
    expect_goes_on(*job);
    expect_clean_end(*job, "pattern:");
    expect_gone("gn4", "orted|ghost-wrapper|pattern");
}

// In fences of the whole job.
TEST_F(Grow, FencesCountTheRankThere) {
    auto job = job_of("fencer", {"--file", path("rounds")});
    ASSERT_NO_FATAL_FAILURE(expect_joins(*job, "gn4"));
    for (const char* node : {"gn4", "gn2", "gn4", "gn1"}) {
        ASSERT_NO_FATAL_FAILURE(expect_moved(*job, 0, node));
        ASSERT_TRUE(job->wait_for_more("fencer: round ", 4)) << job->mpirun().err();
    }
    expect_clean_end(*job, "fencer:");
}

// The daemon of gn4 is the job's fourth, which in another tree than the job's speaks through the
// second one, that of gn2.
TEST_F(Grow, FencesOfADaemonThatSeesAnotherOneJoin) {
    Words words = endless("fencer", {"--file", path("rounds")});
    words.insert(words.begin(), {"--map-by", "node"});
    Job job(lab(), 3, "gn1:2,gn2:2,gn3:2", words);
    ASSERT_TRUE(job.wait_for("fencer: round ")) << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(expect_joins(job, "gn4:2"));
    ASSERT_NO_FATAL_FAILURE(expect_moved(job, 1, "gn4"));
    const Move drained = verb({"drain", "gn2"});
    ASSERT_EQ(drained.status, 0) << drained.err << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(expect_joins(job, "gn2"));
    ASSERT_TRUE(job.wait_for_more("fencer: round ", 4)) << job.mpirun().err();
    expect_clean_end(job, "fencer:");
}

TEST_F(Grow, DrainedNodeIsReplacedAndComesBack) {
    Job job(lab(), 4, "gn1:2,gn2:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(expect_joins(job, "gn4:2"));
    const Move drained = verb({"drain", "gn2"});
    ASSERT_EQ(drained.status, 0) << drained.err << job.mpirun().err();
    for (int rank : {2, 3}) EXPECT_EQ(job.node_of(rank), "gn4");
    expect_goes_on(job);
    lab().switch_off("gn2");
    expect_goes_on(job);
    lab().repair();
    ASSERT_NO_FATAL_FAILURE(expect_joins(job, "gn2:2"));
    ASSERT_NO_FATAL_FAILURE(expect_moved(job, 2, "gn2"));
    const Move other = verb({"drain", "gn4"});
    ASSERT_EQ(other.status, 0) << other.err << job.mpirun().err();
    EXPECT_EQ(job.node_of(3), "gn2");
    expect_goes_on(job);
    expect_clean_end(job, "pattern:");
    for (const char* node : {"gn2", "gn4"}) expect_gone(node, "orted");
}

// A snapshot of a job that has grown, which begins again elsewhere.
TEST_F(Grow, SnapshotCountsTheNode) {
    Job job(lab(), 2, "gn1:2,gn2:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    ASSERT_NO_FATAL_FAILURE(expect_joins(job, "gn4"));
    ASSERT_NO_FATAL_FAILURE(expect_moved(job, 1, "gn4"));
    const Move saved = verb({"checkpoint", "--to", path("snapshots")});
    ASSERT_EQ(saved.status, 0) << saved.err << job.mpirun().err();
    expect_goes_on(job);
    expect_clean_end(job, "pattern:");
}

TEST_F(Grow, WhatCannotJoinLeavesTheJobAsItWas) {
    auto job = job_of("pattern");
    expect_refused(*job, "gn2", "node gn2 is part of the job already");
    expect_refused(*job, "nowhere", "can you log in there without a password");
    expect_refused(*job, "gn4;true", "is no name of a node");
    lab().switch_off("gn4");
    expect_refused(*job, "gn4", "");
    lab().repair();
    ASSERT_NO_FATAL_FAILURE(expect_joins(*job, "gn4"));
    ASSERT_NO_FATAL_FAILURE(expect_moved(*job, 3, "gn4"));
    expect_goes_on(*job);
    expect_clean_end(*job, "pattern:");
}

// The network goes while the daemon starts; a cancel need not wait for the limit.
TEST_F(Grow, NodeThatDiesWhileItJoins) {
    auto job = job_of("pattern");
    lab().cut("gn4");
    Background joining = lab().start_on("gn1", {"ghost", "grow", "gn4", "--json"});
    ASSERT_TRUE(nettest::poll_until(30, [&] { return !lab().pids("gn1", "ssh .*gn4").empty(); }));
    lab().switch_off("gn4");
    const Move cancelled = verb({"cancel"});
    EXPECT_EQ(cancelled.status, 0) << cancelled.err;
    const Move joined = nettest::move_of(joining.finish(60));
    EXPECT_EQ(joined.status, 1) << joined.err;
    EXPECT_NE(joined.err.find("it was cancelled"), std::string::npos) << joined.err;
    expect_goes_on(*job);
    ASSERT_NO_FATAL_FAILURE(expect_moved(*job, 3, "gn2"));
    expect_clean_end(*job, "pattern:");
    expect_gone("gn1", "ssh .*gn4");
}

// The job ends while a daemon is being started that will never come up.
TEST_F(Grow, JobEndsMeanwhile) {
    auto job = job_of("pattern");
    lab().cut("gn4");
    Background joining = lab().start_on("gn1", {"ghost", "grow", "gn4", "--json"});
    ASSERT_TRUE(nettest::poll_until(30, [&] { return !lab().pids("gn1", "ssh .*gn4").empty(); }));
    expect_clean_end(*job, "pattern:");
    EXPECT_EQ(joining.finish(60).status, 1);
    expect_gone("gn1", "ssh .*gn4");
}

TEST_F(Grow, MpirunsOwnNodeTakesRanksAgain) {
    Job job(lab(), 2, "gn1:2,gn2:1", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    ASSERT_EQ(verb({"drain", "gn1"}).status, 1) << "gn2 has one slot";
    ASSERT_NO_FATAL_FAILURE(expect_joins(job, "gn4"));
    ASSERT_EQ(verb({"drain", "gn1"}).status, 0) << job.mpirun().err();
    EXPECT_EQ(job.migrate(1, "gn1").status, 1);
    const Move again = verb({"grow", "gn1"});
    EXPECT_EQ(again.result["again"], true) << again.err;
    ASSERT_NO_FATAL_FAILURE(expect_moved(job, 1, "gn1"));
    expect_clean_end(job, "pattern:");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
