// SPDX-License-Identifier: BSD-3-Clause
// What ranks and tools ask for by PMIx_Job_control on a virtual cluster: moves, drains, snapshots;
// tools that end in the middle of it. Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Background;
using nettest::Finished;
using nettest::Job;
using nettest::Words;

class Control : public nettest::OnLab {
  protected:
    // Rank 0 on gn1, rank 1 on gn2, and mpirun lets tools in.
    std::unique_ptr<Job> two_ranks(const Words& program) {
        Words words{"--mca", "pmix_session_server",  "1",
                    "--mca", "ghost_checkpoint_dir", path("snapshots")};
        words.insert(words.end(), program.begin(), program.end());
        return std::make_unique<Job>(lab(), 2, "gn1:1,gn2:1,gn3:1", words);
    }
    Words tool(const Words& asks) {
        std::string mpirun = lab().on("gn1", {"pgrep", "-x", "mpirun"}).out;
        mpirun = mpirun.substr(0, mpirun.find('\n'));
        Words words{"env", "MPIRUN=" + mpirun, nettest::program("../net/orte41_control"), "tool"};
        words.insert(words.end(), asks.begin(), asks.end());
        return words;
    }
    Finished ask(const Words& asks) { return lab().on("gn1", tool(asks)); }
    void expect_done(const Words& asks) {
        const Finished done = ask(asks);
        EXPECT_EQ(done.status, 0) << done.out << done.err;
    }
    // The tool hears that, and mpirun says why.
    void expect_refused(Job& job, const Words& asks, const std::string& why) {
        const Finished refused = ask(asks);
        EXPECT_EQ(refused.status, 1) << refused.out << refused.err;
        EXPECT_TRUE(job.wait_for_error(why, 10)) << job.mpirun().err();
    }
};

TEST_F(Control, RankAsksToMoveItself) {
    auto job = two_ranks(endless("wanderer", {"--to", "gn3,gn2,gn3"}));
    for (const char* node : {"gn3", "gn2", "gn3"})
        ASSERT_TRUE(job->wait_for_more(std::string("rank 1 is on ") + node + "\n"))
            << node << job->mpirun().out() << job->mpirun().err();
    expect_clean_end(*job, "wanderer:");
}

TEST_F(Control, ToolMovesRanksDrainsNodeAndSaves) {
    auto job = two_ranks(endless("pattern"));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    expect_done({"ghost.migrate", "gn3", "1"});
    EXPECT_EQ(job->node_of(1), "gn3");
    expect_refused(*job, {"ghost.migrate", "gn9", "1"}, "node gn9 is not part of the job");
    expect_refused(*job, {"ghost.migrate", "gn2", "7"}, "there is no rank 7");
    expect_refused(*job, {"ghost.migrate", "gn2"}, "a migration names at least one rank");
    expect_refused(*job, {"ghost.drain", "gn9"}, "gn9");
    for (const char* act : {"ghost.migrate", "ghost.drain"}) {
        const Finished no_text = ask({act, "PID", "1"});
        EXPECT_EQ(no_text.status, 1) << no_text.out << no_text.err;
        EXPECT_NE(no_text.out.find("BAD-PARAM"), std::string::npos) << no_text.out;
    }
    EXPECT_EQ(job->node_of(1), "gn3");
    expect_done({"ghost.drain", "gn3"});
    EXPECT_NE(job->node_of(1), "gn3");
    expect_goes_on(*job);
    expect_done({});
    EXPECT_FALSE(std::filesystem::is_empty(path("snapshots")));
    expect_clean_end(*job, "pattern:");
}

// ghost_mpi.h: the program is not stopped while it holds, and called before and after each stop.
TEST_F(Control, RankThatHoldsIsRefusedUntilItReleases) {
    auto job = two_ranks(endless("wanderer", {"--hold-until", path("released")}));
    ASSERT_TRUE(job->wait_for("round 1:")) << job->mpirun().err();
    const nettest::Move refused = job->migrate(1, "gn3");
    EXPECT_EQ(refused.status, 1);
    EXPECT_NE(refused.err.find("the program has asked not to be stopped now"), std::string::npos)
        << refused.err;
    EXPECT_NE(refused.err.find("the job is unharmed"), std::string::npos) << refused.err;
    expect_goes_on(*job);
    nettest::touch(path("released"));
    expect_goes_on(*job);
    const nettest::Move moved =
        nettest::move_of(job->start_migrate(1, "gn3", {"--mode", "stop"}).finish(60));
    EXPECT_EQ(moved.status, 0) << moved.err;
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint"});
    EXPECT_EQ(saved.status, 0) << saved.err;
    expect_goes_on(*job);
    stop();
    const Finished end = job->finish();
    EXPECT_NE(end.out.find("stops: 2 before, 2 after, 1 elsewhere\n"), std::string::npos)
        << end.out;
    expect_clean(end, "wanderer:");
}

// Without Ghost it goes on too.
TEST_F(Control, ProgramRunsWithoutGhost) {
    const Finished end =
        lab().on("gn1", {"mpirun", "-np", "2", "--host", "gn1:2", nettest::program("wanderer"),
                         "--iterations", "3", "--hold-until", path("released")});
    EXPECT_EQ(end.status, 0) << end.err;
    EXPECT_NE(end.out.find("stops: 0 before, 0 after, 0 elsewhere\n"), std::string::npos)
        << end.out;
}

// What was asked for is done all the same.
TEST_F(Control, ToolThatIsKilledHarmsNobody) {
    auto job = two_ranks(endless("pattern", {"--memory", "64"}));
    ASSERT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
    for (int i = 0; i < 6; ++i) {
        Background one =
            lab().start_on("gn1", tool({"ghost.migrate", i % 2 == 0 ? "gn3" : "gn2", "1"}));
        ::usleep(static_cast<useconds_t>(40'000 * i));
        for (const int pid : lab().pids("gn1", "orte41_control tool")) lab().kill("gn1", pid);
        one.finish(20);
        expect_goes_on(*job, 1);
    }
    expect_moved(*job, 1, "gn3");
    expect_clean_end(*job, "pattern:");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
