// SPDX-License-Identifier: BSD-3-Clause
// Snapshots in the nodes' memory, and copies of them in that of other nodes, on a virtual cluster
// of four nodes: what a job recovers from when ranks and nodes are lost (ghost_checkpoint_to memory
// and partner, ghost_recover), and what becomes of copies that cannot be made.
//
//   GHOST_TEST_LOSSES=50 GHOST_TEST_SEED=7 tests/net/partner_test --gtest_filter=*Random*
//
// Needs root; without it every case is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/net/in_memory.hpp"

namespace {

using nettest::Finished;
using nettest::goes_on;
using nettest::Job;
using nettest::Words;

class Partner : public nettest::InMemory {};

// While all nodes live each has its ranks' ghosts.
TEST_F(Partner, RankThatIsKilledComesBackFromMemory) {
    auto job = job_of("memory");
    save(*job);
    EXPECT_FALSE(std::filesystem::exists(path("snapshots")));
    kill_rank_at("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    save(*job);
    save(*job);
    kill_rank_at("gn1");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 0 was killed by SIGKILL on gn1", 2));
    expect_clean_end(*job, "pattern:");
}

// One that has moved since: its ghost is where it was.
TEST_F(Partner, GhostOfRankThatHasMovedFollows) {
    auto job = job_of("memory");
    save(*job);
    expect_moved(*job, 1, "gn3");
    kill_rank_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 3 was killed by SIGKILL on gn4"));
    EXPECT_EQ(job->node_of(1), "gn3");
    EXPECT_NE(memory_of("gn3").find("rank-1.ghost"), std::string::npos) << memory_of("gn3");
    expect_clean_end(*job, "pattern:");
}

// What is lost in memory may be on a disk; else the job ends, and says why.
TEST_F(Partner, LostMemory) {
    auto job = job_of("memory");
    save(*job, {"--to", path("disk")});
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000001 of"), std::string::npos) << job->mpirun().err();
    save(*job);
    lab().as_root("gn2", {"sh", "-c", "rm -f /dev/shm/ghost-snapshots-*/*/rank-1.ghost*"});
    kill_rank_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 3 was killed by SIGKILL on gn4", 2));
    expect_clean_end(*job, "pattern:");

    lab().repair();
    std::filesystem::remove(path("stop"));
    auto other = job_of("memory");
    save(*other);
    lab().switch_off("gn2");
    expect_ended(*other, "and the job cannot go on from its snapshot: the ghosts of rank 1 in");
}

// The next node has a copy, and older snapshots go from both.
TEST_F(Partner, EveryGhostIsOnTwoNodes) {
    auto job = job_of("partner", {"--mca", "ghost_incremental", "0"});
    save(*job);
    const std::string first = memory_of("gn3");
    EXPECT_NE(first.find("-000001/rank-2.ghost"), std::string::npos) << first;
    EXPECT_NE(first.find("-000001/rank-1.ghost"), std::string::npos) << first;
    EXPECT_EQ(first.find("rank-0.ghost"), std::string::npos) << first;
    EXPECT_NE(memory_of("gn1").find("-000001/rank-3.ghost"), std::string::npos);
    save(*job);
    save(*job);
    for (const char* node : {"gn1", "gn2", "gn3", "gn4"}) {
        const auto there = [&] { return memory_of(node); };
        EXPECT_TRUE(nettest::poll_until(10, [&] {
            return there().find("-000001/") == std::string::npos;
        })) << there();
        EXPECT_EQ(nettest::count_of(there(), ".ghost"), 4U) << there();
        EXPECT_EQ(there().find(".copy"), std::string::npos) << there();
    }
    kill_rank_at("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    expect_clean_end(*job, "pattern:");
}

TEST_F(Partner, NodeThatIsLost) {
    auto job = job_of("partner");
    save(*job);
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    save(*job);
    lab().switch_off("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn2 was lost", 2));
    save(*job);
    kill_rank_at("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "was killed by SIGKILL on gn4", 3));
    expect_clean_end(*job, "pattern:");
}

// What was lost with one is copied again, so that another may be lost before the next snapshot.
TEST_F(Partner, CopiesAreMadeAgain) {
    auto job = job_of("partner");
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    // Rank 1's was there, and is with gn4 now.
    EXPECT_TRUE(nettest::poll_until(20, [&] {
        return memory_of("gn4").find("-000001/rank-1.ghost") != std::string::npos;
    })) << memory_of("gn4");
    const Finished manifest =
        lab().as_root("gn1", {"sh", "-c", "cat /dev/shm/ghost-snapshots-*/*-000001/manifest.json"});
    EXPECT_EQ(manifest.out.find("\"copy\": \"gn3\""), std::string::npos) << manifest.out;
    lab().switch_off("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn2 was lost", 2));
    EXPECT_EQ(nettest::count_of(job->mpirun().err(), "-000001 of"), 2U) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// Nobody has the ghosts of one rank any more.
TEST_F(Partner, NodeAndItsPartnerAreLost) {
    auto job = job_of("partner");
    save(*job, {"--to", path("disk")});
    save(*job);
    lab().switch_off("gn3");
    lab().switch_off("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000001 of"), std::string::npos) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");

    lab().repair();
    std::filesystem::remove(path("stop"));
    auto other = job_of("partner");
    save(*other);
    lab().switch_off("gn2");
    lab().switch_off("gn3");
    expect_ended(*other, "were on gn2 and gn3 only, and lost with");
}

// Its ranks run, and the snapshot before stays. gn4 has no rank, and copies of what gn3 has.
TEST_F(Partner, CopiesThatCannotBeMade) {
    auto job = job_of("partner",
                      {"--mca", "ghost_spares", "1", "--mca", "ghost_checkpoint_copy_rate", "50M",
                       "--mca", "ghost_compress", "none", "--mca", "ghost_incremental", "0"});
    save(*job);
    const std::string before = memory_of("gn4");
    EXPECT_NE(before.find("-000001/rank-2.ghost"), std::string::npos) << before;
    const auto fails = [&](const std::function<void()>& how, const std::string& why) {
        expect_no_snapshot(*job, before, how, why);
    };
    fails([&] { limit("gn4", "150M"); }, "the memory for snapshots of its node is full");
    limit("gn4", "50%");
    fails([&] { lab().kill("gn4", copier_at("gn4")); }, "could not be copied to another node");
    fails([&] { lab().kill("gn3", copier_at("gn3")); }, "could not be copied to another node");
    save(*job);
    // A rank that is killed meanwhile, then the node.
    auto saving = lab().start_on("gn1", {"ghost", "checkpoint"});
    ASSERT_NE(copier_at("gn4"), 0);
    kill_rank_at("gn2");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "rank 1 was killed by SIGKILL on gn2"));
    auto again = lab().start_on("gn1", {"ghost", "checkpoint"});
    ASSERT_NE(copier_at("gn4"), 0);
    lab().switch_off("gn4");
    EXPECT_NE(again.finish(60).status, 0);
    EXPECT_TRUE(job->wait_for_more("round ", 2)) << job->mpirun().err();
    save(*job);
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost", 2));
    expect_clean_end(*job, "pattern:");
}

// A node that leaves has copies: they are made again, and those that later snapshots are based on.
TEST_F(Partner, NodeThatLeavesInOrder) {
    auto job = job_of("partner", {"--mca", "ghost_spares", "1"});
    save(*job);
    save(*job);
    const auto left = verb({"drain", "gn4"});
    ASSERT_EQ(left.status, 0) << left.err;
    EXPECT_TRUE(nettest::poll_until(20, [&] {
        return memory_of("gn1").find("-000002/rank-2.ghost") != std::string::npos;
    })) << memory_of("gn1");
    save(*job);
    EXPECT_NE(memory_of("gn1").find("-000003/rank-2.ghost"), std::string::npos) << memory_of("gn1");
    lab().switch_off("gn3");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000003 of"), std::string::npos) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

TEST_F(Partner, OneNode) {
    expect_memory_alone("partner");
}

// Every second one is on the disk too, and is what is left when two nodes are lost.
TEST_F(Partner, SomeGoToTheDisk) {
    auto job = job_of("partner", {"--mca", "ghost_checkpoint_disk_every", "2"});
    save(*job);
    EXPECT_FALSE(std::filesystem::exists(path("snapshots")));
    save(*job);
    save(*job);
    const Finished ps = lab().on("gn1", {"ghost", "ps"});
    EXPECT_NE(ps.out.find(", to partner, "), std::string::npos) << ps.out;
    EXPECT_NE(ps.out.find("copies of gn1 on gn2, gn2 on gn3, gn3 on gn4, gn4 on gn1"),
              std::string::npos)
        << ps.out;
    lab().switch_off("gn3");
    lab().switch_off("gn4");
    ASSERT_NO_FATAL_FAILURE(expect_recovered(*job, "node gn3 was lost"));
    EXPECT_NE(job->mpirun().err().find("-000002 of"), std::string::npos) << job->mpirun().err();
    expect_clean_end(*job, "pattern:");
}

// By hand, of a snapshot a part of which is on another node than its rank was.
TEST_F(Partner, IsGatheredAndRestarted) {
    auto job = job_of("partner");
    const Finished saved = lab().on("gn1", {"ghost", "checkpoint", "--then", "kill", "--json"});
    ASSERT_EQ(saved.status, 0) << saved.err;
    (void)job->finish();
    lab().switch_off("gn3");
    const Finished all = lab().on(
        "gn1", {"sh", "-c", "ghost gather /dev/shm/ghost-snapshots-* --to " + path("all")}, 120);
    ASSERT_EQ(all.status, 0) << all.err;
    const Finished end = restart(path("all"), {"--host", "gn1:2,gn2:2"});
    expect_clean(end, "pattern:");
}

TEST_F(Partner, RandomLosses) {
    expect_right_after_losses("partner");
}

}  // namespace

int main(int argc, char** argv) {
    return nettest::run_suites(argc, argv);
}
