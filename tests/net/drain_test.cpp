// SPDX-License-Identifier: BSD-3-Clause
// Commands about several ranks on a virtual cluster: moved at the same time, swapped, cancelled,
// and nodes that are drained, leave the job and are switched off. Needs root; without it every case
// is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "tests/net/on_lab.hpp"

namespace {

using nettest::Background;
using nettest::Job;
using nettest::Json;
using nettest::Move;
using nettest::Words;

class Drain : public nettest::OnLab {
  protected:
    // All on gn1.
    std::unique_ptr<Job> four_ranks(const std::string& name, const Words& options = {}) {
        Words words = {"--mca", "ghost_migrate_at_once", "4", "--mca", "ghost_verbose", "2"};
        words.insert(words.end(), options.begin(), options.end());
        const Words program = endless(name);
        words.insert(words.end(), program.begin(), program.end());
        auto job = std::make_unique<Job>(lab(), 4, "gn1:4,gn2:4,gn3:4", words);
        EXPECT_TRUE(job->wait_for("round 0:")) << job->mpirun().err();
        return job;
    }
    void expect_all(Job& job, const Words& nodes) {
        for (int rank = 0; rank < static_cast<int>(nodes.size()); ++rank)
            EXPECT_EQ(job.node_of(rank), nodes[static_cast<size_t>(rank)]) << "rank " << rank;
    }
};

// The most moves that were under way at the same time, as mpirun reports them (ghost_verbose 2).
int most_at_once(const std::string& log) {
    std::istringstream lines(log);
    int under_way = 0, most = 0;
    for (std::string line; std::getline(lines, line);) {
        if (line.find(": checking -> preparing") != std::string::npos)
            most = std::max(most, ++under_way);
        if (line.find(": going -> done") != std::string::npos) --under_way;
    }
    return most;
}

// Every rank sends to every other all the time.
TEST_F(Drain, FourRanksOfOneCommandAndBack) {
    auto job = four_ranks("pattern");
    const Move there = verb({"migrate", "--rank", "0-1,2-3", "--to", "gn2"});
    ASSERT_EQ(there.status, 0) << there.err << job->mpirun().err();
    EXPECT_EQ(there.result["moves"].size(), 4U) << there.result;
    expect_all(*job, {"gn2", "gn2", "gn2", "gn2"});
    EXPECT_GE(most_at_once(job->mpirun().err()), 3) << job->mpirun().err();
    expect_goes_on(*job);
    const Move back = verb({"migrate", "--all-from", "gn2"});
    ASSERT_EQ(back.status, 0) << back.err << job->mpirun().err();
    // Two to each of the others, which have the most room in turn.
    size_t first = 0;
    for (const Json& row : back.result["moves"]) first += row["to"] == "gn1" ? 1 : 0;
    EXPECT_EQ(first, 2U) << back.result;
    expect_goes_on(*job);
    expect_clean_end(*job, "pattern:");
}

TEST_F(Drain, TwoRanksSwapNodes) {
    auto job = four_ranks("pattern");
    ASSERT_NO_FATAL_FAILURE(expect_moved(*job, 3, "gn2"));
    for (int i = 0; i < 4; ++i) {
        const std::string one = i % 2 == 0 ? "gn2" : "gn1", other = i % 2 == 0 ? "gn1" : "gn2";
        Background first = job->start_migrate(0, one);
        const Move second = job->migrate(3, other);
        const Move moved = nettest::move_of(first.finish(60));
        ASSERT_EQ(moved.status, 0) << moved.err << job->mpirun().err();
        ASSERT_EQ(second.status, 0) << second.err << job->mpirun().err();
        expect_all(*job, {one, "gn1", "gn1", other});
        expect_goes_on(*job, 1);
    }
    EXPECT_GE(most_at_once(job->mpirun().err()), 2) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// The link is slow: what is under way when it is cancelled takes a second at least.
TEST_F(Drain, CancelledRanksGoOnWhereTheyAre) {
    auto job = four_ranks("pattern", {"--mca", "ghost_filters", "none"});
    lab().shape("gn2", "fast-ethernet");
    Background moves = lab().start_on(
        "gn1", {"ghost", "migrate", "--rank", "0-3", "--to", "gn2", "--mode", "stop", "--json"});
    ASSERT_TRUE(job->wait_for_error("gating -> transferring", 60)) << job->mpirun().err();
    const Move cancelled = verb({"cancel"});
    const Move moved = nettest::move_of(moves.finish(60));
    EXPECT_EQ(moved.status, 1) << moved.err;
    EXPECT_NE(moved.err.find("it was cancelled"), std::string::npos) << moved.err;
    ASSERT_EQ(cancelled.result["cancelled"].size(), 4U) << cancelled.err;
    size_t stayed = 0;
    for (int rank = 0; rank < 4; ++rank) stayed += job->node_of(rank) == "gn1" ? 1 : 0;
    size_t undone = 0;
    for (const Json& row : cancelled.result["cancelled"]) undone += row["undone"] == true ? 1 : 0;
    EXPECT_EQ(stayed, undone) << cancelled.result;
    EXPECT_GE(undone, 1U);
    expect_goes_on(*job);
    EXPECT_EQ(verb({"cancel"}).status, 0);
    EXPECT_EQ(verb({"cancel", "77"}).status, 1);
    expect_clean_end(*job, "pattern:");
}

// Two ranks on gn2; it is drained, cut off and then switched off under the running job.
TEST_F(Drain, NodeIsSwitchedOffAndTheJobGoesOn) {
    Job job(lab(), 4, "gn1:2,gn2:2,gn3:2", endless("pattern"));
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    ASSERT_EQ(job.node_of(3), "gn2");
    const Move full = verb({"drain", "gn2", "--to", "gn1"});
    EXPECT_EQ(full.status, 1);
    EXPECT_EQ(full.result["stay"].size(), 2U) << full.err;
    EXPECT_NE(full.err.find("node gn2 is not drained: ranks 2, 3 stay there"), std::string::npos)
        << full.err;
    const Move drained = verb({"drain", "gn2"});
    ASSERT_EQ(drained.status, 0) << drained.err << job.mpirun().err();
    EXPECT_EQ(drained.result["drained"], true) << drained.result;
    EXPECT_EQ(drained.result["left"], true) << drained.result;
    EXPECT_NE(drained.result["note"].get<std::string>().find("can be switched off"),
              std::string::npos);
    expect_gone("gn2", "orted|ghost-wrapper|pattern");
    expect_all(job, {"gn1", "gn1", "gn3", "gn3"});
    expect_goes_on(job);
    lab().cut("gn2");
    expect_goes_on(job);
    lab().switch_off("gn2");
    expect_goes_on(job);
    const Move back = job.migrate(2, "gn2");
    EXPECT_EQ(back.status, 1);
    EXPECT_NE(back.err.find("node gn2 has left the job"), std::string::npos) << back.err;
    const Move swapped = verb({"migrate", "--rank", "0", "--to", "gn3"});
    EXPECT_EQ(swapped.status, 1) << "gn3 is full";
    EXPECT_EQ(job.mpirun().err().find("given up"), std::string::npos) << job.mpirun().err();
    expect_clean_end(job, "pattern:");
}

TEST_F(Drain, MpirunsOwnNodeKeepsMpirun) {
    Job job(lab(), 2, "gn1:2,gn2:2,gn3:2", endless("fencer", {"--file", path("rounds")}));
    ASSERT_TRUE(job.wait_for("fencer: round 16")) << job.mpirun().err();
    const Move drained = verb({"drain", "gn1", "--to", "gn2,gn3"});
    ASSERT_EQ(drained.status, 0) << drained.err << job.mpirun().err();
    EXPECT_EQ(drained.result["left"], false);
    EXPECT_NE(drained.result["note"].get<std::string>().find("mpirun runs there and stays"),
              std::string::npos)
        << drained.result;
    expect_all(job, {"gn2", "gn3"});
    const Move back = job.migrate(1, "gn1");
    EXPECT_NE(back.err.find("node gn1 is drained: choose another one"), std::string::npos)
        << back.err;
    const Move other = verb({"drain", "gn3"});
    ASSERT_EQ(other.status, 0) << other.err << job.mpirun().err();
    lab().switch_off("gn3");
    ASSERT_TRUE(job.wait_for_more("fencer: round ", 4)) << job.mpirun().err();
    expect_clean_end(job, "fencer:");
}

// The last nodes of the list, until ranks move there.
TEST_F(Drain, SpareNodesGetNoRanks) {
    Words words{"--map-by", "node", "--mca", "ghost_spares", "1"};
    for (const auto& word : endless("pattern")) words.push_back(word);
    Job job(lab(), 4, "gn1:2,gn2:2,gn3:2", words);
    ASSERT_TRUE(job.wait_for("round 0:")) << job.mpirun().err();
    expect_all(job, {"gn1", "gn2", "gn1", "gn2"});
    const Move drained = verb({"drain", "gn2"});
    ASSERT_EQ(drained.status, 0) << drained.err << job.mpirun().err();
    expect_all(job, {"gn1", "gn3", "gn1", "gn3"});
    expect_goes_on(job);
    expect_clean_end(job, "pattern:");
}

TEST_F(Drain, MoreSparesThanThereAre) {
    const auto start = [&](const std::string& hosts, const std::string& spares) {
        return lab().on("gn1", {"env", "-u", "OMPI_MCA_rmaps_base_oversubscribe", "mpirun", "-np",
                                "2", "--host", hosts, "--mca", "ghost", "1", "--mca",
                                "ghost_spares", spares, "hostname"});
    };
    const auto all = start("gn1:2,gn2:1,gn3:1", "5");
    EXPECT_EQ(all.status, 0) << all.err;
    EXPECT_EQ(all.out, "gn1\ngn1\n");
    EXPECT_NE(all.err.find("ghost_spares is 5, but the job has 2 other nodes"), std::string::npos)
        << all.err;
    const auto others = start("gn2:2,gn3:1", "5");  // mpirun's own is not in the list
    EXPECT_EQ(others.status, 0) << others.err;
    EXPECT_EQ(others.out, "gn2\ngn2\n");
    const auto full = start("gn1:1,gn2:1,gn3:1", "2");
    EXPECT_NE(full.status, 0) << full.out;
    EXPECT_NE(full.err.find("no ranks go to gn2, gn3, kept free by ghost_spares"),
              std::string::npos)
        << full.err;
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
