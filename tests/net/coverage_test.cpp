// SPDX-License-Identifier: BSD-3-Clause
// Every kind of MPI's communication (tests/mpi/coverage) while ranks move between the nodes of a
// virtual cluster: each phase of it has its moves. And ranks that spawn others (tests/mpi/guests).
// Needs root; else every case is skipped.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/net/on_lab.hpp"
#include "tests/rounds.hpp"

namespace {

using nettest::Finished;
using nettest::Job;
using nettest::program;
using nettest::Words;

class Coverage : public nettest::OnLab {
  protected:
    // Ranks on the three nodes in turn; there are fewer processors, so those that wait yield.
    Words spread(const Words& program, const Words& options = {}) const {
        Words words{"--map-by", "node", "--mca", "mpi_yield_when_idle", "1"};
        words.insert(words.end(), options.begin(), options.end());
        words.insert(words.end(), program.begin(), program.end());
        return words;
    }
    Words phases(const Words& options = {}) const {
        Words all{"--dir", path("."), "--now-file", path("now")};
        all.insert(all.end(), options.begin(), options.end());
        return spread(endless("coverage", all));
    }
    // From now on the job does this phase only; "": all in turn.
    void only(const std::string& phase) const {
        std::ofstream(path("next")) << phase << "\n";
        std::filesystem::rename(path("next"), path("now"));
    }
    // To the next node, round and round.
    void move_on(Job& job, int rank) {
        const std::string here = job.node_of(rank);
        expect_moved(job, rank, here == "gn1" ? "gn2" : here == "gn2" ? "gn3" : "gn1");
    }
    void move_in_every_phase(Job& job, int ranks, bool threads);
};

// Lines "KIND NAME" of coverage --list.
std::vector<std::pair<std::string, std::string>> all_phases() {
    std::istringstream lines(nettest::run({program("coverage"), "--list"}, 10).out);
    std::vector<std::pair<std::string, std::string>> all;
    for (std::string kind, name; lines >> kind >> name;) all.emplace_back(kind, name);
    return all;
}

// Each phase is under way when a rank moves, and goes on with it elsewhere. With threads those of
// threads, the others too only at length.
void Coverage::move_in_every_phase(Job& job, int ranks, bool threads) {
    int moves = 0;
    for (const auto& [kind, name] : all_phases()) {
        if (kind == "threads" ? !threads : threads && !ghost::test::at_length()) continue;
        const std::string line = "phase " + kind + "/" + name + " ";
        SCOPED_TRACE(line);
        only(name);
        ASSERT_TRUE(job.wait_for_more(line)) << job.mpirun().err();
        ASSERT_NO_FATAL_FAILURE(move_on(job, moves++ % ranks));
        ASSERT_TRUE(job.wait_for_more(line, 2)) << job.mpirun().err();
    }
    EXPECT_GT(moves, !threads ? 30 : ghost::test::at_length() ? 35 : 3);
}

TEST_F(Coverage, MoveInEveryPhase) {
    Job job(lab(), 4, "gn1:4,gn2:4,gn3:4", phases());
    ASSERT_TRUE(job.wait_for("phase ")) << job.mpirun().err();
    move_in_every_phase(job, 4, false);
    only("");
    for (int i = 0; i < 8 && !HasFatalFailure(); ++i) {
        move_on(job, i % 4);
        EXPECT_TRUE(job.wait_for_more("phase ")) << job.mpirun().err();
    }
    expect_clean_end(job, "coverage:");
}

// MPI_THREAD_MULTIPLE: four threads of each rank are in MPI when it is gone.
TEST_F(Coverage, MoveInEveryPhaseWithThreads) {
    Job job(lab(), 3, "gn1:3,gn2:3,gn3:3", phases({"--threads", "4"}));
    ASSERT_TRUE(job.wait_for("phase ")) << job.mpirun().err();
    move_in_every_phase(job, 3, true);
    only("threads");
    for (int i = 0; i < 6 && !HasFatalFailure(); ++i) {
        move_on(job, i % 3);
        EXPECT_TRUE(job.wait_for_more("phase threads/", 2)) << job.mpirun().err();
    }
    expect_clean_end(job, "coverage:");
}

// Ranks that began on one node share a file's pointer when they are apart, whether it was opened
// before or afterwards.
TEST_F(Coverage, RanksThatBeganOnOneNodeShareAFilePointer) {
    for (const std::string opened : {"kept", "shared"}) {
        SCOPED_TRACE(opened);
        std::filesystem::remove(path("stop"));
        only(opened);
        Job job(lab(), 3, "gn1:4,gn2:4,gn3:4",
                endless("coverage", {"--dir", path("."), "--now-file", path("now")}));
        ASSERT_TRUE(job.wait_for("phase files/" + opened)) << job.mpirun().err();
        for (const int rank : {1, 2}) ASSERT_NO_FATAL_FAILURE(move_on(job, rank));
        only("shared");
        EXPECT_TRUE(job.wait_for_more("phase files/shared", 3)) << job.mpirun().err();
        expect_clean_end(job, "coverage:");
    }
}

// Ranks move while they talk with processes they have spawned, and when those have gone, and spawn
// more where they are then.
// Those themselves do not move.
TEST_F(Coverage, RanksMoveWhileSpawnedProcessesRun) {
    Job job(lab(), 2, "gn1:4,gn2:4,gn3:4",
            spread(endless("guests", {"--children", "3", "--rounds-each", "1000000", "--under-way",
                                      "--pause-file", path("pause")})));
    for (int generation = 0; generation < 3; ++generation) {
        ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
        for (int i = 0; i < 4; ++i) {
            ASSERT_NO_FATAL_FAILURE(move_on(job, i % 2));
            ASSERT_TRUE(job.wait_for_more("round ", 3)) << job.mpirun().err();
        }
        nettest::touch(path("pause"));
        ASSERT_TRUE(job.wait_for_more("guests: alone")) << job.mpirun().err();
        ASSERT_NO_FATAL_FAILURE(move_on(job, generation % 2));
        std::filesystem::remove(path("pause"));
    }
    expect_clean_end(job, "guests:");
}

// A snapshot has one job's ranks: it is refused while others belong to them, and made before and
// after.
TEST_F(Coverage, SnapshotWithSpawnedProcessesIsRefused) {
    const std::string shots = path("shots");
    const auto checkpoint = [&] {
        return lab().on("gn1", {"ghost", "checkpoint", "--to", shots, "--json"});
    };
    Job job(lab(), 2, "gn1:4,gn2:4,gn3:4",
            spread(endless("guests", {"--rounds-each", "1000000", "--pause-file", path("pause")})));
    ASSERT_TRUE(job.wait_for("round 1:")) << job.mpirun().err();
    const Finished refused = checkpoint();
    EXPECT_EQ(refused.status, 1) << refused.out;
    EXPECT_NE(refused.err.find("2 processes that the job has spawned"), std::string::npos)
        << refused.err;
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    nettest::touch(path("pause"));
    ASSERT_TRUE(job.wait_for("guests: alone")) << job.mpirun().err();
    // They are on their way out for a moment.
    Finished made;
    EXPECT_TRUE(nettest::poll_until(20, [&] { return (made = checkpoint()).status == 0; }))
        << made.err;
    std::filesystem::remove(path("pause"));
    ASSERT_TRUE(job.wait_for_more("round ", 2)) << job.mpirun().err();
    expect_clean_end(job, "guests:");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
